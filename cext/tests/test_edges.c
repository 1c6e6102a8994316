/* test_edges.c - the promises about single samples: values at the edges of DESIGN.md's table, samples that are ignored,
 * labels that are no class, and the same bits wherever in a batch and in memory a sample lies. */
#include "problem.h"

enum edge {
    ABSENT,     /* a class at -inf without mass */
    ABSENT_HIT, /* one that is the label, and has mass in the target */
    ALL_ABSENT, /* every logit -inf */
    NAN_LOGIT,
    INF_LOGIT,
    NAN_ABSENT, /* nan, the rest -inf */
    ALL_NAN,
    ALL_EQUAL,
    ALONE, /* all classes but the label at -inf */
    N_EDGES
};

static const char *const edge_name[] = {
    "a class is -inf", "the label is -inf",       "all are -inf", "a nan", "a +inf", "a nan among -inf", "all are nan",
    "all equal",       "only the label is finite"};

static void put_logit(problem *p, ptrdiff_t i, ptrdiff_t k, long double z)
{
    set(p->d, p->logits.data, index_in(&p->logits, i, k), z);
}

static void put_target(problem *p, ptrdiff_t i, ptrdiff_t k, long double t)
{
    set(p->d, p->target.data, index_in(&p->target, i, k), t);
}

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

static const ptrdiff_t edge_classes[] = {2, 5, 8, 16, 32, 33, 64, 71};
enum { N_EDGE_CLASSES = sizeof edge_classes / sizeof edge_classes[0] };

/* The odd sample is one of many, and the others must not notice. */
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

/* The ignored label may be a class, and every sample may have it. */
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

/* The table's numbers, worked out by hand. */
static void known_values(void)
{
    EACH_DTYPE
    EACH_ISA
    for (ptrdiff_t n_classes = 1; n_classes <= 101; n_classes += n_classes < 5 ? 1 : 16) {
        problem p = problem_of(d, 1, n_classes, layouts[0], 1);
        softxent_block b = block_of(&p, *isa);
        const array loss = array_of(arenas[LOSS_OUT], 1, layouts[0], 1, 1, size_of[d]);
        const array out = array_of(arenas[OUT], 1, layouts[0], 1, n_classes, size_of[d]);
        give_labels(&b, &p), give_loss(&b, &loss), give_out(&b, &out);
        ABOUT("%s, %d classes", dtype_name[d], (int)n_classes);

        set_label(&p, 0, 0);
        for (ptrdiff_t k = 0; k < n_classes; ++k) put_logit(&p, 0, k, k ? 100 : 130);
        CHECK(call(LOSS_GRAD, d, &b, NULL) == SOFTXENT_OK);
        const long double others = (long double)(n_classes - 1) * expl(-30);
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

/* Values of a label type that are never a class of `n_classes`: how many there are, and the i-th. */
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
    output loss = output_of(array_of(arenas[LOSS_OUT], 1, l, p->n, 1, size_of[p->d]), p->d, 77, arenas[LOSS_OUT], 0);
    output out = output_of(array_of(arenas[OUT], 1, l, p->n, p->n_classes, size_of[p->d]), p->d, HELD, arenas[OUT], 1);
    give_labels(&b, p), give_loss(&b, &loss.x), give_out(&b, &out.x);
    if (r->op == LOSS) b.out = NULL;
    b.accumulate = r->accumulate, b.use_ignore_index = p->use_ignore_index, b.ignore_index = p->ignore_index;
    ptrdiff_t bad = -5, counted = -6;
    CHECK(call(r->op, p->d, &b, &bad) == SOFTXENT_BAD_LABEL);
    CHECK(bad == at);
    check_untouched(&loss, at);
    check_untouched(&out, r->op == LOSS ? 0 : at);
    for (ptrdiff_t i = 0; i < at; ++i) {
        CHECK(is_near(get(p->d, loss.x.data, i * loss.x.sample_stride), expected.loss[i], expected.loss_error[i]));
        for (ptrdiff_t k = 0; k < p->n_classes && r->op != LOSS; ++k)
            CHECK(is_near(get(p->d, out.x.data, index_in(&out.x, i, k)), expected.out[i * p->n_classes + k],
                          expected.out_error[i * p->n_classes + k]));
    }
    CHECK(call(r->op, p->d, &b, NULL) == SOFTXENT_BAD_LABEL);
    bad = -5;
    CHECK(softxent_check_labels(&b, &counted, &bad) == SOFTXENT_BAD_LABEL && bad == at && counted == -6);
}

/* Every label type, every kind of kernel, and a place in every part of a group; a second bad label comes later. */
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
                    for (const request *r = requests; r < requests + 4; ++r) {
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

/* 2^63 and above are no int64, and so never the label to ignore, whatever that is. */
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

/* ---- The same bits --------------------------------------------------------------------------------------------- */

enum { BITS_CLASSES = 257, BITS_BYTES = (BITS_CLASSES + 1) * 8 };

/* One sample in a batch: its loss and its output side by side, with no regard for their type. */
static void ask_for_bits(const problem *p, const request *r, const softxent_isa *isa, ptrdiff_t at, unsigned char *bits)
{
    const array loss = array_of(arenas[LOSS_OUT], 1, layouts[0], p->n, 1, size_of[p->d]);
    array out = p->logits;
    out.data = arenas[OUT].start + (p->logits.data - arenas[LOGITS].start);
    memset(bits, 0, BITS_BYTES);
    softxent_block b = block_of(p, isa);
    const int is_loss = r->op == LOSS || r->op == LOSS_GRAD, has_out = r->op != LOSS && r->op != LOGSUMEXP;
    if (is_loss && r->target) give_target(&b, p);
    if (is_loss && !r->target) give_labels(&b, p);
    if (is_loss || r->op == LOGSUMEXP) give_loss(&b, &loss);
    if (has_out) give_out(&b, &out);
    b.accumulate = r->accumulate, b.use_ignore_index = p->use_ignore_index, b.ignore_index = p->ignore_index;
    for (ptrdiff_t k = 0; k < p->n_classes && has_out; ++k) set(p->d, out.data, index_in(&out, at, k), HELD);
    CHECK(call(r->op, p->d, &b, NULL) == SOFTXENT_OK);
    if (b.loss) memcpy(bits, loss.data + at * (ptrdiff_t)loss.size, loss.size);
    for (ptrdiff_t k = 0; k < p->n_classes && has_out; ++k)
        memcpy(bits + (size_t)(k + 1) * out.size, out.data + index_in(&out, at, k) * (ptrdiff_t)out.size, out.size);
}

/* The sample whose bits are watched, taken from one problem into a place of another. */
static void move_sample(const problem *from, problem *to, ptrdiff_t i)
{
    set_label(to, i, get_label(from, 0));
    for (ptrdiff_t k = 0; k < to->n_classes; ++k) {
        put_logit(to, i, k, get(from->d, from->logits.data, index_in(&from->logits, 0, k)));
        put_target(to, i, k, get(from->d, from->target.data, index_in(&from->target, 0, k)));
    }
}

/* A batch of n whose strides do not depend on n, `offset` bytes from the start of a page, with neighbours that are
 * ignored, nan or infinite. */
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
    static unsigned char logits[BITS_BYTES], target[BITS_BYTES];
    problem one = batch_of(d, 1, n_classes, channels_first, 0);
    draw_logits(&one, 0), set_label(&one, 0, n_classes / 2);
    for (const request *r = requests; r < requests + N_REQUESTS; ++r)
        EACH_ISA ask_for_bits(&one, r, *isa, 0, reference_bits[r - requests][isa - isas]);

    /* The arenas are used again: the sample goes into arrays of its own. */
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
    static const ptrdiff_t class_counts[] = {1, 2, 3, 8, 13, 32, 33, 64, 100, BITS_CLASSES};
    EACH_DTYPE
    for (int c = 0; c < 10; ++c)
        for (int channels_first = 0; channels_first < 2; ++channels_first)
            check_same_bits(d, class_counts[c], channels_first);
}

int main(void)
{
    make_arenas();
    find_isas();
    RUN_TEST(edges);
    RUN_TEST(ignored_samples);
    RUN_TEST(ignored_class);
    RUN_TEST(known_values);
    RUN_TEST(labels_that_are_no_class);
    RUN_TEST(huge_label_is_never_ignored);
    RUN_TEST(same_bits);
    return report();
}
