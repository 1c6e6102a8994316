/* test_edges.c - the promises about single samples: values at the edges of docs/design.md's table, samples that are
 * ignored, labels that are no class, and the same bits wherever in a batch and in memory a sample lies; by the plain
 * kernels, and by the general one with its options. */
#include "general.h"

enum edge {
    ABSENT,     /* a class at -inf without mass in the target */
    ABSENT_HIT, /* a class at -inf that is the label, and has mass in the target */
    ALL_ABSENT, /* every logit is -inf */
    NAN_LOGIT,
    INF_LOGIT,
    NAN_ABSENT, /* nan, and all other logits -inf */
    ALL_NAN,
    ALL_EQUAL,
    ALONE, /* all classes but the label's are at -inf */
    N_EDGES
};

static const char *const edge_name[] = {
    "a class is -inf", "the label is -inf",       "all are -inf", "a nan", "a +inf", "a nan among -inf", "all are nan",
    "all equal",       "only the label is finite"};

static void put_logit(problem *p, ptrdiff_t i, ptrdiff_t k, long double z) { put(&p->logits, i, k, z); }

static void put_target(problem *p, ptrdiff_t i, ptrdiff_t k, long double t) { put(&p->target, i, k, t); }

static void put_edge(problem *p, ptrdiff_t i, enum edge edge)
{
    const ptrdiff_t label = get_label(p, i), other = (label + 1) % p->n_classes;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        if (edge == ALL_ABSENT || edge == NAN_ABSENT) put_logit(p, i, k, -INFINITY);
        if (edge == ALL_NAN) put_logit(p, i, k, NAN);
        if (edge == ALL_EQUAL) put_logit(p, i, k, 1e8L);
        if (edge == ALONE && k != label) put_logit(p, i, k, -INFINITY), put_target(p, i, k, 0);
    }
    if (edge == ABSENT) put_logit(p, i, other, -INFINITY), put_target(p, i, other, 0);
    if (edge == ABSENT_HIT) put_logit(p, i, label, -INFINITY), put_target(p, i, label, 0.5L);
    if (edge == NAN_LOGIT || edge == NAN_ABSENT) put_logit(p, i, other, NAN);
    if (edge == INF_LOGIT) put_logit(p, i, other, INFINITY);
}

static const ptrdiff_t edge_classes[] = {2, 5, 8, 16, 33, TILE, TILE + 1, TILE + 7};
enum { N_EDGE_CLASSES = sizeof edge_classes / sizeof edge_classes[0] };

/* The odd sample is one of many, and must not change the others. */
static void check_edge(enum edge edge, int ignored)
{
    int problem_number = 0;
    EACH_DTYPE
    for (int c = 0; c < N_EDGE_CLASSES; ++c)
        for (int l = 0; l < N_LAYOUTS; ++l)
            for (ptrdiff_t n = 1; n <= 18; n += 17) {
                if (is_left_out(problem_number++)) continue;
                problem p = problem_of(d, n, edge_classes[c], layouts[l], l % 2);
                const ptrdiff_t odd = (ptrdiff_t)(random_bits() % (uint64_t)n);
                put_edge(&p, odd, edge);
                if (ignored) {
                    p.use_ignore_index = 1, p.ignore_index = p.label_type < SOFTXENT_UINT8 ? -100 : 100;
                    set_label(&p, odd, p.ignore_index);
                }
                check_problem(&p, layouts[l], l % 2);
            }
}

static void edges(void)
{
    for (int edge = 0; edge < N_EDGES; ++edge) {
        const long before = tally.wrong;
        check_edge((enum edge)edge, 0);
        if (tally.wrong > before) printf("    where %s\n", edge_name[edge]);
    }
}

static void ignored_samples(void)
{
    for (int edge = 0; edge < N_EDGES; ++edge) check_edge((enum edge)edge, 1);
}

/* The ignored label may be a class. Every sample may be ignored. */
static void ignored_class(void)
{
    EACH_DTYPE
    for (int c = 0; c < N_EDGE_CLASSES; ++c)
        for (int all = 0; all < 2; ++all) {
            problem p = problem_of(d, 18, edge_classes[c], layouts[0], 1);
            p.use_ignore_index = 1, p.ignore_index = 1;
            for (ptrdiff_t i = 0; i < p.n; ++i)
                if (all || i % 3 == 0) {
                    set_label(&p, i, 1);
                    put_logit(&p, i, 0, NAN);
                }
            check_problem(&p, layouts[0], 1);
        }
}

/* The numbers of the table, computed by hand. */
static void known_values(void)
{
    EACH_DTYPE
    EACH_ISA
    for (ptrdiff_t n_classes = 1; n_classes <= 101; n_classes += n_classes < 5 ? 1 : 16) {
        problem p = problem_of(d, 1, n_classes, layouts[0], 1);
        softxent_block b = block_of(&p, *isa);
        const array loss = reals_of(arenas[LOSS_OUT], 1, layouts[0], 1, 1, d);
        const array out = reals_of(arenas[OUT], 1, layouts[0], 1, n_classes, d);
        give_labels(&b, &p), give_loss(&b, &loss), give_out(&b, &out);
        ABOUT("%s, %d classes", dtype_name[d], (int)n_classes);

        set_label(&p, 0, 0);
        for (ptrdiff_t k = 0; k < n_classes; ++k) put_logit(&p, 0, k, k ? 100 : 130);
        CHECK(call(LOSS_GRAD, d, &b, NULL) == SOFTXENT_OK);
        const long double others = (long double)(n_classes - 1) * wide_exp(-30);
        const long double error = 4 * 31 * eps_of[d] * others;
        CHECK(is_near(get(d, loss.data, 0), log1pl(others), error));
        CHECK(is_near(get(d, out.data, 0), -others / (1 + others), error));
        if (n_classes == 1) CHECK(get(d, loss.data, 0) == 0 && get(d, out.data, 0) == 0);

        for (ptrdiff_t k = 0; k < n_classes; ++k) put_logit(&p, 0, k, 1e8L);
        CHECK(call(LOSS_GRAD, d, &b, NULL) == SOFTXENT_OK);
        const long double log_c = logl((long double)n_classes), p_k = 1 / (long double)n_classes;
        CHECK(is_near(get(d, loss.data, 0), log_c, 2 * eps_of[d] * log_c));
        for (ptrdiff_t k = 1; k < n_classes; ++k) CHECK(is_near(get(d, out.data, k), p_k, eps_of[d] * p_k));
        CHECK(is_near(get(d, out.data, 0), -(n_classes - 1) * p_k, eps_of[d]));
    }
}

/* ---- Labels that are no class ---------------------------------------------------------------------------------- */

/* The values of a label type that are never a class of `n_classes`: their number, and the i-th one. */
static int bad_labels(int type, ptrdiff_t n_classes, int64_t *values)
{
    int n = 0;
    if (type < SOFTXENT_UINT8) values[n++] = -1, values[n++] = -label_max[type] - 1;
    if (label_max[type] >= n_classes) values[n++] = n_classes, values[n++] = label_max[type];
    if (type == SOFTXENT_UINT64) values[n++] = -1, values[n++] = INT64_MIN; /* 2^64 - 1 and 2^63 */
    return n;
}

static void check_bad_label(const problem *p, const softxent_isa *isa, const request *r, layout l, ptrdiff_t at)
{
    softxent_block b = block_of(p, isa);
    output loss = output_of(reals_of(arenas[LOSS_OUT], 1, l, p->n, 1, p->d), 77, arenas[LOSS_OUT], 0);
    output out = output_of(reals_of(arenas[OUT], 1, l, p->n, p->n_classes, p->d), HELD, arenas[OUT], 1);
    give_labels(&b, p), give_loss(&b, &loss.x), give_ranks(&b, 1);
    if (has_output(r->op)) give_out(&b, &out.x);
    b.accumulate = r->accumulate, b.use_ignore_index = p->use_ignore_index, b.ignore_index = p->ignore_index;
    ptrdiff_t bad = -5, counted = -6;
    CHECK(call(r->op, p->d, &b, &bad) == SOFTXENT_BAD_LABEL);
    CHECK(bad == at);
    check_untouched(&loss, at);
    check_untouched(&out, has_output(r->op) ? at : 0);
    check_ranks(&b, r->op == RANK ? at : 0);
    for (ptrdiff_t i = 0; i < at; ++i) {
        CHECK(is_near(get(p->d, loss.x.data, i * loss.x.sample_stride), expected.loss[i], expected.loss_error[i]));
        for (ptrdiff_t k = 0; k < p->n_classes && has_output(r->op); ++k)
            CHECK(is_near(get(p->d, out.x.data, index_in(&out.x, i, k)), expected.out[i * p->n_classes + k],
                          expected.out_error[i * p->n_classes + k]));
    }
    CHECK(call(r->op, p->d, &b, NULL) == SOFTXENT_BAD_LABEL);
    bad = -5;
    CHECK(softxent_check_labels(&b, &counted, &bad) == SOFTXENT_BAD_LABEL && bad == at && counted == -6);
}

/* Every label type, every kind of kernel, and the bad label at every place of a group. A second bad label comes later.
 */
static void labels_that_are_no_class(void)
{
    static const ptrdiff_t places[] = {0, 1, 3, 15, 16, 17, 32};
    int problem_number = 0;
    for (int type = SOFTXENT_INT8; type <= SOFTXENT_UINT64; ++type)
        for (int l = 0; l < N_LAYOUTS; ++l)
            for (ptrdiff_t n_classes = 3; n_classes <= 43; n_classes += 40) {
                int64_t values[6];
                const int n_values = bad_labels(type, n_classes, values);
                const enum dtype d = (type + l) % 2 ? F32 : F64;
                problem p = problem_of(d, 33, n_classes, layouts[l], 1);
                p.label_type = type;
                p.labels = array_of(arenas[LABELS], 1, layouts[l], p.n, 1, label_size[type]);
                for (ptrdiff_t i = 0; i < p.n; ++i) set_label(&p, i, i % n_classes);
                p.use_ignore_index = l % 2, p.ignore_index = 2;
                solve(&p);
                for (int a = 0; a < 7; ++a)
                    for (const request *r = requests; r < requests + 5; ++r) {
                        if (r->grad_output || is_left_out(problem_number++)) continue;
                        const int64_t bad = values[(a + l) % n_values];
                        set_label(&p, places[a], bad), set_label(&p, 32, bad);
                        expect(&p, r);
                        EACH_ISA
                        {
                            ABOUT("%s, %s, %s, label %lld of type %d at %d", r->name, dtype_name[d], layouts[l].name,
                                  (long long)bad, type, (int)places[a]);
                            check_bad_label(&p, *isa, r, layouts[l], places[a]);
                        }
                        set_label(&p, places[a], places[a] % n_classes), set_label(&p, 32, 32 % n_classes);
                    }
            }
}

/* Labels of 2^63 and above are no int64. So they never equal the label to ignore, whatever that is. */
static void huge_label_is_never_ignored(void)
{
    static const int64_t ignored[] = {INT64_MIN, -1, INT64_MAX};
    static const uint64_t huge[] = {UINT64_MAX, (uint64_t)1 << 63, ((uint64_t)1 << 63) + 5};
    for (int g = 0; g < 3; ++g)
        for (int h = 0; h < 3; ++h) EACH_ISA
            {
                problem p = problem_of(F32, 1, 4, layouts[0], 1);
                p.label_type = SOFTXENT_UINT64;
                p.labels = array_of(arenas[LABELS], 1, layouts[0], 1, 1, 8);
                set_label(&p, 0, (int64_t)huge[h]);
                const array loss = array_of(arenas[LOSS_OUT], 1, layouts[0], 1, 1, 4);
                softxent_block b = block_of(&p, *isa);
                give_labels(&b, &p), give_loss(&b, &loss);
                b.use_ignore_index = 1, b.ignore_index = ignored[g];
                ABOUT("label %llu, ignore_index %lld", (unsigned long long)huge[h], (long long)ignored[g]);
                CHECK(call(LOSS, F32, &b, NULL) == SOFTXENT_BAD_LABEL);
                CHECK(softxent_check_labels(&b, NULL, NULL) == SOFTXENT_BAD_LABEL);
            }
}

/* ---- Targets that are no mass ------------------------------------------------------------------------------------ */

enum { TARGET_SAMPLES = 21, TARGET_CLASSES = 300 };

/* The targets lie sample by sample, or class by class. The values are the same. */
static softxent_block block_with_target(enum dtype d, const softxent_isa *isa, ptrdiff_t c, int in_rows)
{
    static double z[TARGET_SAMPLES * TARGET_CLASSES], v[TARGET_SAMPLES * TARGET_CLASSES];
    softxent_block b = {.size = sizeof b, .isa = isa, .n_samples = TARGET_SAMPLES, .n_classes = c, .grad_scale = 1};
    const ptrdiff_t sample = in_rows ? c : 1, class = in_rows ? 1 : TARGET_SAMPLES;
    for (ptrdiff_t i = 0; i < TARGET_SAMPLES; ++i)
        for (ptrdiff_t k = 0; k < c; ++k) {
            set(d, z, i * sample + k * class, (long double)((7 * i + 5 * k) % 13) / 4);
            set(d, v, i * sample + k * class, (long double)((3 * i + k) % 5));
        }
    b.logits = z, b.logits_sample_stride = sample, b.logits_class_stride = class;
    b.direction = v, b.direction_sample_stride = sample, b.direction_class_stride = class;
    b.target_sample_stride = b.out_sample_stride = sample, b.target_class_stride = b.out_class_stride = class;
    b.loss_stride = b.rank_stride = b.top_stride = 1;
    return b;
}

/* The samples before the bad one have the results that they have if all are good. */
static void check_bad_target(softxent_block b, enum op op, enum dtype d, ptrdiff_t at, ptrdiff_t class, double bad)
{
    static double t[TARGET_SAMPLES * TARGET_CLASSES], out[2][TARGET_SAMPLES * TARGET_CLASSES], loss[2][TARGET_SAMPLES];
    static int64_t rank[2][TARGET_SAMPLES], top[2][TARGET_SAMPLES];
    const ptrdiff_t c = b.n_classes, sample = b.target_sample_stride, step = b.target_class_stride;
    b.target = t;
    for (ptrdiff_t i = 0; i < TARGET_SAMPLES; ++i) /* 0 and -0 are good masses */
        for (ptrdiff_t k = 0; k < c; ++k) set(d, t, i * sample + k * step, k == (i * 5) % c ? 1 : k % 2 ? -0.0L : 0);
    for (int is_bad = 0; is_bad < 2; ++is_bad) {
        ptrdiff_t found = -5;
        memset(loss[is_bad], 0, sizeof loss[0]), memset(out[is_bad], 0, sizeof out[0]);
        b.loss = loss[is_bad], b.out = has_output(op) ? out[is_bad] : NULL, b.rank = rank[is_bad], b.top = top[is_bad];
        if (is_bad) set(d, t, at * sample + class * step, bad);
        if (is_bad && at + 3 < TARGET_SAMPLES) set(d, t, (at + 3) * sample, bad);
        CHECK(call(op, d, &b, &found) == (is_bad ? SOFTXENT_BAD_TARGET : SOFTXENT_OK));
        CHECK(found == (is_bad ? at : -5));
        found = -5;
        CHECK((d == F32 ? softxent_check_target_f32 : softxent_check_target_f64)(&b, &found) ==
              (is_bad ? SOFTXENT_BAD_TARGET : SOFTXENT_OK));
        CHECK(found == (is_bad ? at : -5));
    }
    for (ptrdiff_t i = 0; i < at; ++i) {
        CHECK(!writes_loss(op) || get(d, loss[0], i) == get(d, loss[1], i));
        CHECK(op != RANK || (rank[0][i] == rank[1][i] && top[0][i] == top[1][i]));
        for (ptrdiff_t k = 0; k < c; ++k)
            CHECK(get(d, out[0], i * sample + k * step) == get(d, out[1], i * sample + k * step));
    }
}

/* Every kind of kernel, with the bad entry at every place in a group and in a row. */
static void targets_that_are_no_mass(void)
{
    static const ptrdiff_t classes[] = {3, TILE, TILE + 1, TARGET_CLASSES}, places[] = {0, 1, 7, 8, 16, 20};
    static const enum op ops[] = {LOSS, LOSS_GRAD, RANK, HVP};
    const softxent_options tempered = {.size = sizeof tempered, .temperature = 2, .label_smoothing = 0.25};
    for (int q = 0; q < 4; ++q)
        for (int d = F32; d <= F64; ++d)
            for (int variant = 0; variant < 4; ++variant)
                for (int j = 0; j < 4; ++j)
                    for (int i = 0; i < 6; ++i) EACH_ISA
                        {
                            const ptrdiff_t c = classes[j], last = c - 1;
                            softxent_block b = block_with_target(d, *isa, c, variant % 2);
                            const double bad[] = {-1, NAN, d == F32 ? -0x1p-149 : -0x1p-1074};
                            if (variant >= 2) b.options = &tempered;
                            ABOUT("%s, dtype %d, variant %d, %td classes, sample %td", op_name(ops[q]), d, variant, c,
                                  places[i]);
                            check_bad_target(b, ops[q], d, places[i], i % 2 ? last : i % c, bad[(i + j) % 3]);
                        }
}

/* ---- Sparse targets that are none, and weights of 0 -------------------------------------------------------------- */

enum { SPARSE_MASSES = 70 };

/* Each sample has all its mass in a few classes, and a pad. */
static softxent_block block_with_masses(enum dtype d, const softxent_isa *isa, ptrdiff_t c, int in_rows, ptrdiff_t n,
                                        void *classes, void *masses)
{
    softxent_block b = block_with_target(d, isa, c, in_rows);
    b.classes = classes, b.masses = masses, b.n_masses = n, b.masses_stride = n + 1, b.label_type = SOFTXENT_INT16;
    for (ptrdiff_t j = 0; j < TARGET_SAMPLES * (n + 1); ++j) {
        ((int16_t *)classes)[j] = (int16_t)(j % 7 == 6 ? -1 : (3 * j) % c);
        set(d, masses, j, j % 5 == 0 ? -0.0L : (long double)(j % 3 + 1) / 4);
    }
    return b;
}

static int check_target_of(enum dtype d, const softxent_block *b, ptrdiff_t *bad)
{
    return (d == F32 ? softxent_check_target_f32 : softxent_check_target_f64)(b, bad);
}

/* Entry j of sample `at` is bad, and so is one of a later sample. The call names the first; the samples before it have
 * the results that they have if all are good. A weight of 0 hides a bad mass, but not a bad class. */
static void check_bad_mass(softxent_block b, enum op op, enum dtype d, ptrdiff_t at, ptrdiff_t j, int is_class,
                           int16_t *classes, double *masses)
{
    static double out[2][TARGET_SAMPLES * TARGET_CLASSES], loss[2][TARGET_SAMPLES], weights[TARGET_SAMPLES];
    static int64_t rank[2][TARGET_SAMPLES], top[2][TARGET_SAMPLES];
    static const double bad_masses[] = {-1, NAN, -0x1p-140, -INFINITY};
    const int expected_status = is_class ? SOFTXENT_BAD_LABEL : SOFTXENT_BAD_TARGET;
    for (int is_bad = 0; is_bad < 2; ++is_bad) {
        ptrdiff_t found = -5;
        memset(loss[is_bad], 0, sizeof loss[0]), memset(out[is_bad], 0, sizeof out[0]);
        b.loss = loss[is_bad], b.out = has_output(op) ? out[is_bad] : NULL, b.rank = rank[is_bad], b.top = top[is_bad];
        for (ptrdiff_t i = at; is_bad && i < TARGET_SAMPLES; i += 3)
            if (is_class)
                classes[i * b.masses_stride + j] = (int16_t)(j % 2 ? b.n_classes : -2);
            else /* the mass of a pad is not looked at */
                classes[i * b.masses_stride + j] = 0, set(d, masses, i * b.masses_stride + j, bad_masses[(i + j) % 4]);
        CHECK(call(op, d, &b, &found) == (is_bad ? expected_status : SOFTXENT_OK) && found == (is_bad ? at : -5));
        found = -5;
        CHECK(check_target_of(d, &b, &found) == (is_bad ? expected_status : SOFTXENT_OK));
        CHECK(found == (is_bad ? at : -5));
    }
    for (ptrdiff_t i = 0; i < at; ++i) {
        CHECK(op == HVP || get(d, loss[0], i) == get(d, loss[1], i));
        CHECK(op != RANK || (rank[0][i] == rank[1][i] && top[0][i] == top[1][i]));
        for (ptrdiff_t k = 0; k < b.n_classes; ++k) {
            const ptrdiff_t entry = i * b.out_sample_stride + k * b.out_class_stride;
            CHECK(get(d, out[0], entry) == get(d, out[1], entry));
        }
    }
    for (ptrdiff_t i = 0; i < TARGET_SAMPLES; ++i) set(d, weights, i, i < at);
    b.sample_weight = weights, b.sample_weight_stride = 1;
    CHECK(call(op, d, &b, NULL) == (is_class ? SOFTXENT_BAD_LABEL : SOFTXENT_OK));
    CHECK(check_target_of(d, &b, NULL) == (is_class ? SOFTXENT_BAD_LABEL : SOFTXENT_OK));
    for (ptrdiff_t i = at; i < TARGET_SAMPLES && !is_class; ++i) {
        CHECK(op == HVP || get(d, loss[1], i) == 0);
        CHECK(op != RANK || (rank[1][i] == -1 && top[1][i] == -1));
        for (ptrdiff_t k = 0; k < b.n_classes; ++k)
            CHECK(get(d, out[1], i * b.out_sample_stride + k * b.out_class_stride) == 0);
    }
}

/* Every kind of kernel, with few masses and with more than the row kernel takes one by one. */
static void sparse_targets_that_are_none(void)
{
    static int16_t classes[TARGET_SAMPLES * (SPARSE_MASSES + 1)];
    static double masses[TARGET_SAMPLES * (SPARSE_MASSES + 1)];
    static const ptrdiff_t some_classes[] = {3, TILE, TILE + 1, TARGET_CLASSES}, counts[] = {1, 5, SPARSE_MASSES};
    static const ptrdiff_t places[] = {0, 1, 8, 20};
    static const enum op ops[] = {LOSS, LOSS_GRAD, RANK, HVP};
    const softxent_options tempered = {.size = sizeof tempered, .temperature = 2, .label_smoothing = 0.25};
    const softxent_options smooth = {.size = sizeof smooth, .label_smoothing = 0.25};
    int number = 0;
    EACH_DTYPE
    for (int q = 0; q < 4; ++q)
        for (int variant = 0; variant < 12; ++variant)
            for (int c = 0; c < 4; ++c)
                for (int n = 0; n < 3; ++n)
                    for (int i = 0; i < 4; ++i) EACH_ISA
                        {
                            if (is_left_out(++number)) continue;
                            softxent_block b =
                                block_with_masses(d, *isa, some_classes[c], variant % 2, counts[n], classes, masses);
                            if (variant / 4) b.options = variant / 4 == 1 ? &tempered : &smooth;
                            ABOUT("%s %s, variant %d, %td classes, %td masses, sample %td", op_name(ops[q]),
                                  dtype_name[d], variant, b.n_classes, b.n_masses, places[i]);
                            check_bad_mass(b, ops[q], d, places[i], (places[i] + c) % b.n_masses, variant / 2 % 2,
                                           classes, masses);
                        }
}

/* A sample of weight 0 is not looked at: its logits and its target may hold anything. */
static void weight_0_hides_bad_targets(void)
{
    static double t[TARGET_SAMPLES * TARGET_CLASSES], out[TARGET_SAMPLES * TARGET_CLASSES], loss[TARGET_SAMPLES];
    static double weights[TARGET_SAMPLES];
    static const ptrdiff_t classes[] = {3, TILE, TILE + 1, TARGET_CLASSES};
    static const enum op ops[] = {LOSS_GRAD, RANK, HVP, KL_GRAD, ENTROPY_GRAD};
    EACH_DTYPE
    for (int q = 0; q < 5; ++q)
        for (int c = 0; c < 4; ++c)
            for (int variant = 0; variant < 4; ++variant) EACH_ISA
                {
                    softxent_block b = block_with_target(d, *isa, classes[c], variant % 2);
                    double *z = (double *)b.logits; /* written by block_with_target */
                    for (ptrdiff_t i = 0; i < TARGET_SAMPLES; ++i) {
                        set(d, weights, i, i % 3 ? 0.5L : variant / 2 ? -0.0L : 0);
                        for (ptrdiff_t k = 0; k < b.n_classes; ++k) {
                            const ptrdiff_t at = i * b.target_sample_stride + k * b.target_class_stride;
                            set(d, t, at, i % 3 ? 1 : k % 2 ? NAN : -1);
                            if (i % 3 == 0) set(d, z, at, k % 2 ? -INFINITY : NAN);
                        }
                    }
                    b.target = t, b.loss = loss, b.out = out, b.sample_weight = weights, b.sample_weight_stride = 1;
                    int64_t rank[TARGET_SAMPLES], top[TARGET_SAMPLES];
                    b.rank = rank, b.top = top;
                    ABOUT("%s %s, %td classes, variant %d", op_name(ops[q]), dtype_name[d], b.n_classes, variant);
                    CHECK(call(ops[q], d, &b, NULL) == SOFTXENT_OK && check_target_of(d, &b, NULL) == SOFTXENT_OK);
                    for (ptrdiff_t i = 0; i < TARGET_SAMPLES; ++i) {
                        CHECK(ops[q] == HVP || (get(d, loss, i) == 0) == (i % 3 == 0));
                        CHECK(ops[q] != RANK || (rank[i] == -1) == (i % 3 == 0));
                        for (ptrdiff_t k = 0; k < b.n_classes && has_output(ops[q]); ++k) {
                            const long double x = get(d, out, i * b.out_sample_stride + k * b.out_class_stride);
                            CHECK(i % 3 ? isfinite(x) : x == 0);
                        }
                    }
                }
}

/* ---- The same bits --------------------------------------------------------------------------------------------- */

enum { BITS_CLASSES = 257, BITS_BYTES = (BITS_CLASSES + 1) * 8 };

/* One sample of a batch: the bytes of its loss and its output side by side, whatever their type. */
static void ask_for_bits(const problem *p, const request *r, const softxent_isa *isa, ptrdiff_t at, unsigned char *bits)
{
    const array loss = reals_of(arenas[LOSS_OUT], 1, layouts[0], p->n, 1, p->d);
    array out = p->logits;
    out.data = arenas[OUT].start + (p->logits.data - arenas[LOGITS].start);
    memset(bits, 0, BITS_BYTES);
    softxent_block b = block_of(p, isa);
    const int is_loss = has_loss_of(r->op), has_out = has_output(r->op);
    if (is_loss && r->target) give_target(&b, p);
    if (is_loss && !r->target) give_labels(&b, p);
    if (writes_loss(r->op)) give_loss(&b, &loss);
    if (has_out) give_out(&b, &out);
    b.accumulate = r->accumulate, b.use_ignore_index = p->use_ignore_index, b.ignore_index = p->ignore_index;
    for (ptrdiff_t k = 0; k < p->n_classes && has_out; ++k) set(p->d, out.data, index_in(&out, at, k), HELD);
    CHECK(call(r->op, p->d, &b, NULL) == SOFTXENT_OK);
    if (b.loss) memcpy(bits, loss.data + at * (ptrdiff_t)loss.size, loss.size);
    for (ptrdiff_t k = 0; k < p->n_classes && has_out; ++k)
        memcpy(bits + (size_t)(k + 1) * out.size, out.data + index_in(&out, at, k) * (ptrdiff_t)out.size, out.size);
}

/* Copies the sample whose bits are watched from one problem to a place in another. */
static void move_sample(const problem *from, problem *to, ptrdiff_t i)
{
    set_label(to, i, get_label(from, 0));
    for (ptrdiff_t k = 0; k < to->n_classes; ++k) {
        put_logit(to, i, k, get(from->d, from->logits.data, index_in(&from->logits, 0, k)));
        put_target(to, i, k, get(from->d, from->target.data, index_in(&from->target, 0, k)));
    }
}

/* A batch of n samples with strides that do not depend on n, `offset` bytes from the start of a page. The neighbours of
 * the sample are ignored, nan or infinite. */
static problem batch_of(enum dtype d, ptrdiff_t n, ptrdiff_t n_classes, int channels_first, ptrdiff_t offset)
{
    problem p = problem_of(d, n, n_classes, layouts[0], 1);
    p.label_type = SOFTXENT_INT64;
    p.labels = array_of(arenas[LABELS], 1, layouts[0], n, 1, 8);
    p.logits.data = arenas[LOGITS].start + offset, p.target.data = arenas[TARGET].start + offset;
    p.logits.sample_stride = p.target.sample_stride = channels_first ? 1 : n_classes + 3;
    p.logits.class_stride = p.target.class_stride = channels_first ? MAX_SAMPLES + 2 : 1;
    p.use_ignore_index = 1, p.ignore_index = -1;
    for (ptrdiff_t i = 0; i < n; ++i) {
        draw_logits(&p, i), draw_target(&p, i);
        set_label(&p, i, (int64_t)(random_bits() % (uint64_t)n_classes));
        if (random_bits() % 4 == 0) put_edge(&p, i, (enum edge)(random_bits() % N_EDGES));
        if (random_bits() % 4 == 0) set_label(&p, i, -1);
    }
    return p;
}

static unsigned char reference_bits[N_REQUESTS][MAX_ISAS][BITS_BYTES];

static void compare_bits(const problem *p, ptrdiff_t at, ptrdiff_t offset)
{
    static unsigned char bits[BITS_BYTES];
    for (const request *r = requests; r < requests + N_REQUESTS; ++r) {
        if (r->in_place || r->other_layout) continue;
        EACH_ISA
        {
            ask_for_bits(p, r, *isa, at, bits);
            ABOUT("%s, %s, %d classes, class stride %d, sample %d of %d, offset %d", r->name, dtype_name[p->d],
                  (int)p->n_classes, (int)p->logits.class_stride, (int)at, (int)p->n, (int)offset);
            CHECK(memcmp(bits, reference_bits[r - requests][isa - isas], BITS_BYTES) == 0);
        }
    }
}

static void check_same_bits(enum dtype d, ptrdiff_t n_classes, int channels_first)
{
    static const ptrdiff_t sizes[] = {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33};
    static _Alignas(double) unsigned char logits[BITS_BYTES], target[BITS_BYTES];
    problem one = batch_of(d, 1, n_classes, channels_first, 0);
    draw_logits(&one, 0), set_label(&one, 0, n_classes / 2);
    for (const request *r = requests; r < requests + N_REQUESTS; ++r)
        EACH_ISA ask_for_bits(&one, r, *isa, 0, reference_bits[r - requests][isa - isas]);

    /* The arenas are used again, so the sample is copied into arrays of its own. */
    for (ptrdiff_t k = 0; k < n_classes; ++k) {
        set(d, logits, k, get(d, one.logits.data, index_in(&one.logits, 0, k)));
        set(d, target, k, get(d, one.target.data, index_in(&one.target, 0, k)));
    }
    int64_t label = n_classes / 2;
    problem sample = one;
    sample.logits.data = logits, sample.target.data = target, sample.labels.data = (unsigned char *)&label;
    sample.logits.class_stride = sample.target.class_stride = 1;

    for (int s = 0; s < 11; ++s) {
        if (is_left_out(s + (int)n_classes)) continue;
        problem p = batch_of(d, sizes[s], n_classes, channels_first, 0);
        for (ptrdiff_t at = 0; at < p.n; ++at) {
            move_sample(&sample, &p, at);
            compare_bits(&p, at, 0);
        }
    }
    for (ptrdiff_t offset = 0; offset < 64; offset += (ptrdiff_t)size_of[d]) {
        if (is_left_out((int)(offset / 4 + n_classes))) continue;
        for (ptrdiff_t at = 0; at < 17; at += 16) {
            problem p = batch_of(d, 17, n_classes, channels_first, offset);
            move_sample(&sample, &p, at);
            compare_bits(&p, at, offset);
        }
    }
}

static void same_bits(void)
{
    static const ptrdiff_t class_counts[] = {1, 2, 3, 8, 13, 33, TILE, TILE + 1, 100, BITS_CLASSES};
    EACH_DTYPE
    for (int c = 0; c < 10; ++c)
        for (int channels_first = 0; channels_first < 2; ++channels_first)
            check_same_bits(d, class_counts[c], channels_first);
}

/* ---- The general kernel: the same promises with options -------------------------------------------------------- */

/* The label to ignore is no class. If any sample has it, it is sample i. */
static void ignore_sample(problem *p, ptrdiff_t i)
{
    p->use_ignore_index = 1, p->ignore_index = p->label_type < SOFTXENT_UINT8 ? -100 : 127;
    set_label(p, i, p->ignore_index);
}

static void check_general_edge(enum edge edge, int ignored)
{
    int problem_number = (int)edge;
    EACH_DTYPE
    for (int c = 0; c < N_EDGE_CLASSES; ++c)
        for (int l = 0; l < N_LAYOUTS; ++l)
            for (ptrdiff_t n = 1; n <= 18; n += 17) {
                if (is_left_out(problem_number++)) continue;
                const int features = draw_features() & ~HAS_IGNORE_INDEX & ~(ignored ? HAS_TARGET | HAS_SPARSE : 0);
                general g = general_of(d, features, n, edge_classes[c], layouts[l], l % 2);
                const ptrdiff_t odd = (ptrdiff_t)(random_bits() % (uint64_t)n);
                put_edge(&g.p, odd, edge);
                if (ignored) {
                    ignore_sample(&g.p, odd);
                    for (ptrdiff_t k = 0; k < g.p.n_classes; ++k) put(&g.direction, odd, k, NAN);
                }
                check_general_problem(&g, layouts[l], l % 2, 4);
            }
}

static void general_edges(void)
{
    for (int edge = 0; edge < N_EDGES; ++edge) {
        const long before = tally.wrong;
        check_general_edge((enum edge)edge, 0);
        if (tally.wrong > before) printf("    where %s\n", edge_name[edge]);
    }
}

static void general_ignored_samples(void)
{
    for (int edge = 0; edge < N_EDGES; ++edge) check_general_edge((enum edge)edge, 1);
}

/* A removed class may hold anything, in its logit and in its direction. From one sample all classes are removed. */
static void removed_classes(void)
{
    static const long double anything[] = {NAN, INFINITY, -INFINITY, 1e30L};
    EACH_DTYPE
    for (int c = 0; c < N_EDGE_CLASSES; ++c)
        for (int l = 0; l < N_LAYOUTS; ++l) {
            if (is_left_out(c + l)) continue;
            general g = general_of(d, draw_features() | HAS_WHERE, 18, edge_classes[c], layouts[l], l % 2);
            g.where = array_of(arenas[WHERE], l % 2, any_layout(), g.p.n, g.p.n_classes, 1);
            const ptrdiff_t odd = (ptrdiff_t)(random_bits() % 18);
            for (ptrdiff_t i = 0; i < g.p.n; ++i)
                for (ptrdiff_t k = 0; k < g.p.n_classes; ++k) {
                    *allowed_at(&g, i, k) = i != odd && (k == get_label(&g.p, i) || one_in(2));
                    if (is_allowed(&g, i, k)) continue;
                    put_logit(&g.p, i, k, anything[random_bits() % 4]), put_target(&g.p, i, k, 0);
                    put(&g.direction, i, k, one_in(2) ? NAN : 1e30L);
                }
            check_general_problem(&g, layouts[l], l % 2, 2);
        }
}

/* Divergences of samples whose logits, or whose teacher's, are at the edges; and a removed class may hold anything in
 * its logits and its target. The divergence is +inf where the target has mass and the softmax none, and p_k where a
 * class has no mass. */
static void divergences_at_the_edges(void)
{
    static const long double anything[] = {NAN, INFINITY, -INFINITY, -1e30L};
    for (int edge = 0; edge < N_EDGES; ++edge) EACH_DTYPE
    for (int c = 0; c < N_EDGE_CLASSES; ++c)
        for (int l = 0; l < N_LAYOUTS; ++l) {
            if (is_left_out(c + l + edge)) continue;
            general g = general_of(d, draw_features() & ~(HAS_HALVES | HAS_IGNORE_INDEX), 18, edge_classes[c],
                                   layouts[l], l % 2);
            problem teacher = g.p;
            teacher.logits = g.direction;
            for (ptrdiff_t i = 0; i < g.p.n; i += 3) {
                if (i % 2) put_edge(&g.p, i, (enum edge)(random_bits() % N_EDGES));
                put_edge(&teacher, i, (enum edge)edge);
            }
            for (ptrdiff_t i = 0; i < g.p.n; ++i)
                for (ptrdiff_t k = 0; k < g.p.n_classes; ++k) {
                    if (is_allowed(&g, i, k)) continue;
                    put_logit(&g.p, i, k, anything[random_bits() % 4]),
                        put_target(&g.p, i, k, anything[random_bits() % 4]);
                    put(&g.direction, i, k, anything[random_bits() % 4]);
                }
            check_divergences(&g, layouts[l], l % 2);
        }
}

/* The numbers of the table for entropies and divergences, computed by hand: the class at -inf is absent. */
static void known_entropies_and_divergences(void)
{
    EACH_DTYPE
    EACH_ISA
    for (ptrdiff_t n_classes = 3; n_classes <= 147; n_classes += n_classes < 5 ? 1 : 71) {
        problem p = problem_of(d, 1, n_classes, layouts[0], 1);
        softxent_block b = block_of(&p, *isa);
        const array loss = reals_of(arenas[LOSS_OUT], 1, layouts[0], 1, 1, d);
        const array out = reals_of(arenas[OUT], 1, layouts[0], 1, n_classes, d);
        const long double n = (long double)n_classes - 1, log_n = logl(n), eps = 4 * eps_of[d];
        give_target(&b, &p), give_loss(&b, &loss), give_out(&b, &out);
        ABOUT("%s, %d classes", dtype_name[d], (int)n_classes);
        for (ptrdiff_t k = 0; k < n_classes; ++k) put_logit(&p, 0, k, k ? 5 : -INFINITY), put_target(&p, 0, k, k == 1);
        CHECK(call(ENTROPY_GRAD, d, &b, NULL) == SOFTXENT_OK);
        CHECK(is_near(get(d, loss.data, 0), log_n, eps * log_n));
        for (ptrdiff_t k = 0; k < n_classes; ++k) CHECK(get(d, out.data, k) == 0);
        CHECK(call(KL_GRAD, d, &b, NULL) == SOFTXENT_OK); /* log n: of one class from n equal ones */
        CHECK(is_near(get(d, loss.data, 0), log_n, eps * (1 + log_n)));
        CHECK(get(d, out.data, 0) == 0 && is_near(get(d, out.data, 1), 1 / n - 1, eps));
        put_target(&p, 0, 0, 0.5L);
        CHECK(call(KL_GRAD, d, &b, NULL) == SOFTXENT_OK);
        CHECK(get(d, loss.data, 0) == INFINITY && get(d, out.data, 0) == -0.5L);
        b.target_holds_logits = 1; /* finite: both classes have mass */
        CHECK(call(KL, d, &b, NULL) == SOFTXENT_OK && get(d, loss.data, 0) == INFINITY);
        b.target = p.logits.data, b.target_sample_stride = b.logits_sample_stride, b.target_class_stride = 1;
        CHECK(call(KL_GRAD, d, &b, NULL) == SOFTXENT_OK && get(d, loss.data, 0) == 0);
        for (ptrdiff_t k = 0; k < n_classes; ++k) CHECK(get(d, out.data, k) == 0);
    }
}

/* A weight of 0 makes an infinite loss 0. If all weights are 0, the loss and its derivatives are exactly 0, but for the
 * smallest value that a Hessian may have. */
static void zero_weights(void)
{
    static const question loss_grad = {.op = LOSS_GRAD}, hvp = {.op = HVP};
    EACH_DTYPE
    for (int which = 0; which < 4; ++which)
        for (int c = 0; c < N_EDGE_CLASSES; ++c) {
            const int features = (which % 2 ? HAS_CLASS_WEIGHT : HAS_SAMPLE_WEIGHT) | HAS_SMOOTHING;
            general g = general_of(d, features | (which < 2 ? HAS_TARGET : 0), 18, edge_classes[c], layouts[c % 7], 1);
            for (ptrdiff_t k = 0; k < g.p.n_classes && which % 2; ++k) put(&g.class_weight, 0, k, 0);
            for (ptrdiff_t i = 0; i < g.p.n; ++i) {
                if (which % 2 == 0) put(&g.sample_weight, i, 0, 0);
                draw_logits(&g.p, i), put_edge(&g.p, i, ABSENT_HIT);
            }
            for (int second = 0; second < 2; ++second) EACH_ISA
                {
                    about_general(&g, second ? &hvp : &loss_grad, layouts[c % 7]);
                    for (ptrdiff_t j = 0; j < g.p.n * g.p.n_classes; ++j) set_expected(j, 0, 0);
                    for (ptrdiff_t i = 0; i < g.p.n; ++i) expected.loss[i] = expected.loss_error[i] = 0;
                    check_question(&g, second ? &hvp : &loss_grad, layouts[c % 7], 1, *isa);
                }
        }
}

static void check_general_bad_label(const general *g, const softxent_isa *isa, const question *q, layout l,
                                    ptrdiff_t at)
{
    const ptrdiff_t n = g->p.n, c = g->p.n_classes;
    softxent_block b = general_block(g, isa);
    output loss = output_of(reals_of(arenas[LOSS_OUT], 1, l, n, 1, g->held.loss), 77, arenas[LOSS_OUT], 0);
    output out = output_of(reals_of(arenas[OUT], 1, l, n, c, g->held.out), HELD, arenas[OUT], 1);
    output hess = output_of(reals_of(arenas[HESS_OUT], 1, l, n, c, g->held.out), 77, arenas[HESS_OUT], 2);
    const int has_loss = q->op != HVP, has_out = has_output(q->op);
    give_ranks(&b, 1);
    if (has_loss) give_loss(&b, &loss.x);
    if (has_out) give_out(&b, &out.x);
    if (q->hess) b.hess = hess.x.data;
    b.hess_sample_stride = hess.x.sample_stride, b.hess_class_stride = hess.x.class_stride;
    b.accumulate = q->accumulate;
    ptrdiff_t bad = -5;
    CHECK(call(q->op, g->p.d, &b, &bad) == SOFTXENT_BAD_LABEL && bad == at);
    check_untouched(&loss, has_loss ? at : 0);
    check_untouched(&out, has_out ? at : 0);
    check_untouched(&hess, q->hess ? at : 0);
    check_ranks(&b, q->op == RANK ? at : 0);
    loss.x.n = out.x.n = hess.x.n = at;
    loss = snapshot(loss.x, arenas[LOSS_OUT], 0), out = snapshot(out.x, arenas[OUT], 1);
    hess = snapshot(hess.x, arenas[HESS_OUT], 2);
    if (has_loss) check_output(&loss, expected.loss, expected.loss_error);
    if (has_out) check_output(&out, expected.out, expected.out_error);
    if (q->hess) check_output(&hess, expected.hess, expected.hess_error);
}

/* The samples before the bad label are done. Its sample and all later ones are unchanged. */
static void general_labels_that_are_no_class(void)
{
    static const ptrdiff_t places[] = {0, 1, 3, 8, 15, 16, 17, 32};
    int problem_number = 0;
    EACH_DTYPE
    for (int l = 0; l < N_LAYOUTS; ++l)
        for (int c = 0; c < 3; ++c)
            for (int a = 0; a < 8; ++a) {
                static const ptrdiff_t some_classes[] = {3, 43, 300};
                if (is_left_out(problem_number++)) continue;
                general g =
                    general_of(d, draw_features() & ~HAS_TARGET & ~HAS_SPARSE, 33, some_classes[c], layouts[l], 1);
                int64_t values[6];
                const int n_values = bad_labels(g.p.label_type, some_classes[c], values);
                const int64_t bad = n_values ? values[random_bits() % (uint64_t)n_values] : 0;
                if (n_values == 0 || (g.p.use_ignore_index && bad == g.p.ignore_index)) continue;
                set_label(&g.p, places[a], bad), set_label(&g.p, 32, bad);
                for (const question *q = questions; q < questions + N_QUESTIONS; ++q) {
                    if (!is_of_labels(q->op) || q->in_place || q->other_layout || !can_ask(&g, q)) continue;
                    expect_general(&g, q);
                    about_general(&g, q, layouts[l]);
                    EACH_ISA check_general_bad_label(&g, *isa, q, layouts[l], places[a]);
                }
            }
}

/* ---- The same bits with options -------------------------------------------------------------------------------- */

/* Everything that one sample is made of. */
typedef struct {
    long double logits[BITS_CLASSES], target[BITS_CLASSES], direction[BITS_CLASSES], sample_weight, grad_output;
    long double temperature, masses[MAX_SPARSE];
    int64_t classes[MAX_SPARSE];
    unsigned char where[BITS_CLASSES];
    int64_t label;
} sample;

static void take_sample(const general *g, sample *s)
{
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        s->logits[k] = entry(&g->p.logits, 0, k), s->target[k] = entry(&g->p.target, 0, k);
        s->direction[k] = entry(&g->direction, 0, k), s->where[k] = *allowed_at(g, 0, k);
    }
    s->sample_weight = entry(&g->sample_weight, 0, 0), s->grad_output = entry(&g->p.grad_output, 0, 0);
    s->label = get_label(&g->p, 0), s->temperature = entry(&g->temperatures, 0, 0);
    for (ptrdiff_t j = 0; j < g->masses.n_classes; ++j)
        s->masses[j] = entry(&g->masses, 0, j), s->classes[j] = get_integer(g->p.label_type, g->classes.data, j);
}

static void place_sample(general *g, ptrdiff_t i, const sample *s)
{
    for (ptrdiff_t k = 0; k < g->p.n_classes; ++k) {
        put(&g->p.logits, i, k, s->logits[k]), put(&g->p.target, i, k, s->target[k]);
        put(&g->direction, i, k, s->direction[k]), *allowed_at(g, i, k) = s->where[k];
    }
    put(&g->sample_weight, i, 0, s->sample_weight), put(&g->p.grad_output, i, 0, s->grad_output);
    set_label(&g->p, i, s->label), put(&g->temperatures, i, 0, s->temperature);
    for (ptrdiff_t j = 0; j < g->masses.n_classes; ++j) {
        put(&g->masses, i, j, s->masses[j]);
        set_integer(g->p.label_type, g->classes.data, index_in(&g->classes, i, j), s->classes[j]);
    }
}

enum { GENERAL_BITS_BYTES = (2 * BITS_CLASSES + 3) * 8 };

/* Copies the loss, output and Hessian of one sample side by side, from arrays of any layout. */
static void ask_for_general_bits(const general *g, const question *q, const softxent_isa *isa, ptrdiff_t at,
                                 unsigned char *bits)
{
    const ptrdiff_t n = g->p.n, c = g->p.n_classes;
    const array loss = reals_of(arenas[LOSS_OUT], 1, any_layout(), n, 1, g->held.loss);
    const array out = reals_of(arenas[OUT], 1, any_layout(), n, c, g->held.out);
    const array hess = reals_of(arenas[HESS_OUT], 1, any_layout(), n, c, g->held.out);
    static double grads[MAX_SAMPLES];
    softxent_block b = general_block(g, isa);
    memset(bits, 0, GENERAL_BITS_BYTES);
    if (writes_loss(q->op)) give_loss(&b, &loss);
    if (is_divergence(q->op)) give_divergence(&b, g, q->teacher);
    if (q->temperature_grad) b.temperature_grad = grads, b.temperature_grad_stride = 1;
    if (has_output(q->op)) give_out(&b, &out);
    if (q->hess) b.hess = hess.data;
    b.hess_sample_stride = hess.sample_stride, b.hess_class_stride = hess.class_stride;
    b.accumulate = q->accumulate;
    for (ptrdiff_t k = 0; k < c; ++k) put(&out, at, k, HELD);
    CHECK(call(q->op, g->p.d, &b, NULL) == SOFTXENT_OK);
    if (b.loss) memcpy(bits, loss.data + index_in(&loss, at, 0) * (ptrdiff_t)loss.size, loss.size);
    for (ptrdiff_t k = 0; k < c; ++k) {
        bits += out.size;
        if (b.out) memcpy(bits, out.data + index_in(&out, at, k) * (ptrdiff_t)out.size, out.size);
        bits += out.size;
        if (b.hess) memcpy(bits, hess.data + index_in(&hess, at, k) * (ptrdiff_t)hess.size, hess.size);
    }
    if (b.temperature_grad) memcpy(bits + hess.size, grads + at, sizeof *grads);
}

/* A batch with the same types and options as the first one, but with other samples, and other layouts of all arrays. */
static general general_batch_like(const general *first, const sample *s, const array *class_weight, ptrdiff_t n,
                                  layout l, ptrdiff_t at)
{
    const int features = first->features;
    general g = typed_general_of(first->p.d, first->held, features, n, first->p.n_classes, l, (int)(n % 2));
    g.where = array_of(arenas[WHERE], 1, any_layout(), n, g.p.n_classes, 1);
    g.p.label_type = first->p.label_type, g.p.use_ignore_index = 1, g.p.ignore_index = 126;
    g.p.labels = array_of(arenas[LABELS], 1, any_layout(), n, 1, label_size[g.p.label_type]);
    if (features & HAS_SPARSE) g.p.use_ignore_index = 0;
    draw_masses(&g, first->masses.n_classes, (int)(n % 2));
    for (ptrdiff_t i = 0; i < n; ++i) {
        set_label(&g.p, i, one_in(4) ? 126 : (int64_t)(random_bits() % (uint64_t)g.p.n_classes % 100));
        for (ptrdiff_t k = 0; k < g.p.n_classes; ++k) *allowed_at(&g, i, k) = !one_in(3);
        if (one_in(4) && get_label(&g.p, i) < g.p.n_classes) put_edge(&g.p, i, (enum edge)(random_bits() % N_EDGES));
    }
    for (ptrdiff_t k = 0; k < g.p.n_classes; ++k) put(&g.class_weight, 0, k, entry(class_weight, 0, k));
    g.o = first->o, g.hess_kind = first->hess_kind;
    if (g.o.class_weight) g.o.class_weight = g.class_weight.data;
    place_sample(&g, at, s);
    return g;
}

/* The bits of one sample: if its classes lie side by side, and if they do not. */
static void check_general_bits(enum dtype d, ptrdiff_t n_classes, int features)
{
    static unsigned char first_bits[2][N_QUESTIONS][MAX_ISAS][GENERAL_BITS_BYTES], bits[GENERAL_BITS_BYTES];
    static _Alignas(double) unsigned char weights[BITS_CLASSES * sizeof(double)];
    static sample s;
    general first = general_of(d, features, 1, n_classes, layouts[0], 1);
    array class_weight = first.class_weight;
    int is_known[2] = {0, 0};
    draw_logits(&first.p, 0);
    set_label(&first.p, 0, n_classes / 2 % 100), *allowed_at(&first, 0, n_classes / 2 % 100) = 1;
    memcpy(weights, class_weight.data, class_weight.bytes), class_weight.data = weights;
    take_sample(&first, &s);

    for (int round = 0; round < 16; ++round) {
        const ptrdiff_t n = round < 2 ? 1 : 1 + (ptrdiff_t)(random_bits() % MAX_SAMPLES);
        const ptrdiff_t at = (ptrdiff_t)(random_bits() % (uint64_t)n);
        const layout l = round < 2 ? layouts[round ? 6 : 0] : any_layout();
        const general g = general_batch_like(&first, &s, &class_weight, n, l, at);
        const int side_by_side = g.p.logits.class_stride == 1;
        for (int i = 0; i < N_QUESTIONS; ++i) {
            const question *q = &questions[i];
            if (q->in_place || q->other_layout || q->op == JACOBIAN || !can_ask(&g, q)) continue;
            EACH_ISA
            {
                unsigned char *known = first_bits[side_by_side][i][isa - isas];
                about_general(&g, q, l);
                ask_for_general_bits(&g, q, *isa, at, is_known[side_by_side] ? bits : known);
                CHECK(!is_known[side_by_side] || memcmp(bits, known, sizeof bits) == 0);
            }
        }
        is_known[side_by_side] = 1;
    }
}

static void general_same_bits(void)
{
    static const ptrdiff_t class_counts[] = {1, 2, 3, 8, 13, 33, TILE, TILE + 1, 100, BITS_CLASSES};
    EACH_DTYPE
    for (int c = 0; c < 10; ++c)
        for (int round = 0; round < 6; ++round)
            if (!is_left_out(c + round)) check_general_bits(d, class_counts[c], draw_features() & ~HAS_IGNORE_INDEX);
}

/* The bits are the same: -0 stays -0, which it would not if 0 were added to it. */
static void ignored_samples_keep_what_is_accumulated_into(void)
{
    enum { N = 37, MOST = 300 };
    static const ptrdiff_t class_counts[] = {3, 10, TILE, TILE + 1, MOST};
    static double logits[N * MOST], out[N * MOST], loss[N];
    static uint8_t labels[N];
    softxent_options warm = {.size = sizeof warm, .temperature = 2};
    for (int i = 0; i < N; ++i) labels[i] = i % 3 ? 255 : 1;
    EACH_DTYPE
    for (int c = 0; c < 5; ++c)
        for (int way = 0; way < 4; ++way) EACH_ISA
            {
                const ptrdiff_t n_classes = class_counts[c];
                const int is_apart = way % 2; /* the classes of a sample do not lie side by side */
                softxent_block b = {.size = sizeof b, .isa = *isa, .n_samples = N, .n_classes = n_classes};
                b.options = way / 2 ? &warm : NULL; /* the call goes to the general kernel */
                b.logits = logits, b.out = out, b.accumulate = 1, b.grad_scale = 1;
                b.loss = loss, b.loss_stride = 1;
                b.logits_sample_stride = b.out_sample_stride = is_apart ? 1 : n_classes;
                b.logits_class_stride = b.out_class_stride = is_apart ? N : 1;
                b.labels = labels, b.labels_stride = 1, b.label_type = SOFTXENT_UINT8;
                b.use_ignore_index = 1, b.ignore_index = 255;
                for (ptrdiff_t j = 0; j < N * n_classes; ++j)
                    d == F32 ? (void)(((float *)(void *)out)[j] = -0.0F) : (void)(out[j] = -0.0);
                CHECK((d == F32 ? softxent_cross_entropy_f32 : softxent_cross_entropy_f64)(&b, NULL) == SOFTXENT_OK);
                for (ptrdiff_t i = 0; i < N; ++i)
                    for (ptrdiff_t k = 0; k < n_classes; ++k) {
                        const ptrdiff_t at = is_apart ? k * N + i : i * n_classes + k;
                        const double held = d == F32 ? ((const float *)(const void *)out)[at] : out[at];
                        CHECK(i % 3 == 0 || (held == 0 && signbit(held)));
                    }
            }
}

/* The gradient and the Hessian of one sample, computed beside a sample whose weight is `other`. */
static void ask_beside(enum dtype d, const softxent_isa *isa, double scale, double other, ptrdiff_t n_classes,
                       double *out)
{
    enum { N = 2, MOST = 200 };
    static double logits[N * MOST], hess[N * MOST], loss[N];
    static const float weights_f32[2][N] = {{0.93F, 1}, {0.93F, 0x1p100F}};
    static const double weights_f64[2][N] = {{0.93, 1}, {0.93, 0x1p100}};
    static const int64_t labels[N] = {1, 0};
    const int is_large = other > 1;
    const softxent_options o = {.size = sizeof o, .temperature = 2, .log_base = scale};
    softxent_block b = {.size = sizeof b, .isa = isa, .n_samples = N, .n_classes = n_classes, .options = &o};
    for (ptrdiff_t k = 0; k < N * n_classes; ++k)
        d == F32 ? (void)(((float *)(void *)logits)[k] = (float)(k % 7)) : (void)(logits[k] = (double)(k % 7));
    b.logits = logits, b.loss = loss, b.out = out, b.hess = hess, b.labels = labels;
    b.grad_scale = scale, b.loss_stride = b.labels_stride = 1;
    b.label_type = SOFTXENT_INT64;
    b.logits_sample_stride = b.out_sample_stride = b.hess_sample_stride = n_classes;
    b.logits_class_stride = b.out_class_stride = b.hess_class_stride = 1;
    b.sample_weight = d == F32 ? (const void *)weights_f32[is_large] : (const void *)weights_f64[is_large];
    b.sample_weight_stride = 1;
    CHECK((d == F32 ? softxent_cross_entropy_f32 : softxent_cross_entropy_f64)(&b, NULL) == SOFTXENT_OK);
    const size_t bytes = (size_t)n_classes * (d == F32 ? sizeof(float) : sizeof(double));
    memcpy((char *)out + bytes, hess, bytes); /* in place of the other sample's gradient */
}

/* grad_scale / log_base is 1 here, also where twice grad_scale or log_base times the temperature is out of range. */
static void scales_that_cancel(void)
{
    enum { MOST = 200 };
    static const ptrdiff_t class_counts[] = {3, TILE, TILE + 1, MOST};
    static double expected[2 * MOST], out[2 * MOST];
    EACH_DTYPE
    for (int c = 0; c < 4; ++c) EACH_ISA
        {
            const size_t bytes = 2 * (size_t)class_counts[c] * (d == F32 ? sizeof(float) : sizeof(double));
            ask_beside(d, *isa, 1, 1, class_counts[c], expected);
            for (int way = 0; way < 4; ++way) {
                ask_beside(d, *isa, way % 2 ? DBL_MAX : 1, way / 2 ? 0x1p100 : 1, class_counts[c], out);
                CHECK(memcmp(out, expected, bytes) == 0);
            }
        }
}

int main(void)
{
    make_arenas();
    find_isas();
    RUN_TEST(edges);
    RUN_TEST(ignored_samples);
    RUN_TEST(ignored_class);
    RUN_TEST(ignored_samples_keep_what_is_accumulated_into);
    RUN_TEST(known_values);
    RUN_TEST(labels_that_are_no_class);
    RUN_TEST(huge_label_is_never_ignored);
    RUN_TEST(targets_that_are_no_mass);
    RUN_TEST(sparse_targets_that_are_none);
    RUN_TEST(weight_0_hides_bad_targets);
    RUN_TEST(known_entropies_and_divergences);
    RUN_TEST(divergences_at_the_edges);
    RUN_TEST(same_bits);
    RUN_TEST(general_edges);
    RUN_TEST(general_ignored_samples);
    RUN_TEST(removed_classes);
    RUN_TEST(zero_weights);
    RUN_TEST(general_labels_that_are_no_class);
    RUN_TEST(general_same_bits);
    RUN_TEST(scales_that_cancel);
    return report();
}
