/* test_public.c - the public functions' manners: what they return for arguments that cannot be right, that they touch
 * nothing then, how the instruction set is chosen, and the checks of the labels. Numbers are in test_kernels.c. */
#include "general.h"

#include <limits.h>

enum { N = 4, N_CLASSES = 70 }; /* enough classes for the row kernel */

static problem sound_problem;
static output loss_output, out_output, hess_output;
static softxent_options sound_options;

/* A block that is valid for every function, with fresh outputs. */
static softxent_block sound_block(enum dtype d)
{
    sound_problem = problem_of(d, N, N_CLASSES, layouts[0], 1);
    const array loss = reals_of(arenas[LOSS_OUT], 1, layouts[0], N, 1, d);
    const array out = reals_of(arenas[OUT], 1, layouts[0], N, N_CLASSES, d);
    loss_output = output_of(loss, 77, arenas[LOSS_OUT], 0), out_output = output_of(out, 77, arenas[OUT], 1);
    const array hess = reals_of(arenas[HESS_OUT], 1, layouts[0], N, N_CLASSES, d);
    const array v = reals_of(arenas[DIRECTION], 1, layouts[0], N, N_CLASSES, d);
    hess_output = output_of(hess, 77, arenas[HESS_OUT], 2);
    for (ptrdiff_t i = 0; i < N; ++i)
        for (ptrdiff_t k = 0; k < N_CLASSES; ++k) put(&v, i, k, random_between(-1, 1));
    memset(&sound_options, 0, sizeof sound_options);
    sound_options.size = sizeof sound_options;
    softxent_block b = block_of(&sound_problem, NULL);
    give_labels(&b, &sound_problem), give_loss(&b, &loss), give_out(&b, &out), give_ranks(&b, 1);
    b.direction = v.data, b.direction_sample_stride = v.sample_stride, b.direction_class_stride = v.class_stride;
    b.hess_sample_stride = hess.sample_stride, b.hess_class_stride = hess.class_stride;
    return b;
}

/* Room for the one output that is larger: the Jacobian. A divergence needs a target, beside the labels that it does not
 * look at. Its entries are 1, which are masses in every type. */
static softxent_block sound_block_of(enum op op, enum dtype d)
{
    softxent_block b = sound_block(d);
    if (is_divergence(op)) {
        sound_problem.target = reals_of(arenas[TARGET], 1, layouts[0], N, N_CLASSES, d);
        give_target(&b, &sound_problem);
        for (ptrdiff_t i = 0; i < N; ++i)
            for (ptrdiff_t k = 0; k < N_CLASSES; ++k) put(&sound_problem.target, i, k, 1);
    }
    if (op != JACOBIAN) return b;
    out_output = output_of(reals_of(arenas[OUT], 1, layouts[0], N * N_CLASSES, N_CLASSES, d), 77, arenas[OUT], 1);
    give_out(&b, &out_output.x);
    b.out_row_stride = N_CLASSES, b.out_sample_stride = N_CLASSES * N_CLASSES;
    return b;
}

static void check_refused(enum op op, enum dtype d, const softxent_block *b, int status)
{
    ptrdiff_t bad = -5;
    CHECK(call(op, d, b, &bad) == status);
    CHECK(bad == -5);
    if (b) check_ranks(b, 0);
    check_untouched(&loss_output, 0);
    check_untouched(&out_output, 0);
    check_untouched(&hess_output, 0);
}

/* A sparse target in place of the labels: class 1 and padding for each sample. */
static void give_sparse(softxent_block *b)
{
    static const int16_t classes[2] = {1, -1};
    static const double masses[2] = {1, 1}; /* read as floats, these are good masses too */
    b->labels = NULL, b->classes = classes, b->masses = masses, b->label_type = SOFTXENT_INT16, b->n_masses = 2;
}

/* spoil() makes one thing wrong in `b`, the i-th one. It returns 0 if that does not concern the operation. There are
 * N_WRONGS things, of which the first N_PLAIN_WRONGS have nothing to do with sparse targets and temperatures. */
enum { N_PLAIN_WRONGS = 13, N_WRONGS = 30 };

static int spoil_sparse(softxent_block *b, int wrong)
{
    static const double bad_temperatures[N] = {0, -1, NAN, INFINITY}, beyond[N] = {0x1p-101, 0x1p101, 1, 1};
    static const double good[N] = {1, 1, 1, 1};
    const void *labels = b->labels;
    if (wrong < 8) give_sparse(b);
    switch (wrong) {
    case 0: b->masses = NULL; break;
    case 1: b->classes = NULL; break;
    case 2: b->labels = labels; break; /* both labels and a sparse target */
    case 3: b->target = b->logits; break;
    case 4: b->use_ignore_index = 1; break;
    case 5: b->n_masses = -1; break;
    case 6: b->label_type = 8; break;
    case 7: b->label_type = -1; break;
    case 8:
    case 9: b->temperatures = beyond + (wrong - 8), b->temperatures_stride = 0; break;
    case 10: b->temperatures = good, b->options = &sound_options, sound_options.temperature = 2; break;
    case 11: b->temperatures = bad_temperatures, b->temperatures_stride = 1; break;
    default: b->temperatures = bad_temperatures + (wrong - 12), b->temperatures_stride = 0; return wrong < 16;
    }
    return 1;
}

static int spoil(softxent_block *b, int wrong, enum op op)
{
    const int is_loss = is_of_labels(op);
    switch (wrong) {
    case 0: b->size = sizeof *b - 1; return 1;
    case 1: b->size = 0; return 1;
    case 2: b->n_samples = -1; return 1;
    case 3: b->n_classes = 0; return 1;
    case 4: b->n_classes = -3; return 1;
    case 5: b->logits = NULL; return 1;
    case 6: b->label_type = 8; return is_loss;
    case 7: b->label_type = -1; return is_loss;
    case 8: b->labels = NULL; return is_loss; /* neither labels nor a target */
    case 9: b->loss = NULL; return writes_loss(op);
    case 10: b->direction = NULL; return op == HVP || op == JVP || op == LOG_JVP || op == LOG_VJP;
    case 11: b->target = b->logits; return is_loss; /* both labels and a target */
    case 12: b->out = NULL; return !writes_loss(op);
    case 13: b->target = NULL; return is_divergence(op);
    default: return spoil_sparse(b, wrong - 14) && is_loss;
    }
}

static void bad_arguments(void)
{
    EACH_DTYPE
    EACH_OP
    {
        for (int wrong = 0; wrong < N_WRONGS; ++wrong) {
            softxent_block b = sound_block_of((enum op)op, d);
            ABOUT("%s %s, wrong %d", op_name((enum op)op), dtype_name[d], wrong);
            if (spoil(&b, wrong, (enum op)op)) check_refused((enum op)op, d, &b, SOFTXENT_BAD_ARGUMENT);
        }
        sound_block(d);
        ABOUT("%s %s, NULL", op_name((enum op)op), dtype_name[d]);
        check_refused((enum op)op, d, NULL, SOFTXENT_BAD_ARGUMENT);
    }
}

/* ---- Options and types ------------------------------------------------------------------------------------------ */

/* Sets one option out of its range, the i-th one, and returns whether the operation looks at it. All other options are
 * valid. */
enum { N_BAD_OPTIONS = 27 };

KNOWS_FIELDS_UP_TO(log_base, softxent_options);

static int spoil_options(softxent_options *o, int wrong, enum op op)
{
    static const double bad_scales[] = {-1, NAN, INFINITY, -INFINITY, 0x1p-101, 0x1p101};
    static const double bad_smoothings[] = {-0x1p-1074, -1, 1 + DBL_EPSILON, NAN, INFINITY};
    static const double bad_z_losses[] = {-0x1p-1074, NAN, INFINITY, -INFINITY};
    static const double bad_bases[] = {NAN, INFINITY, -INFINITY};
    const int looks = op != JACOBIAN;
    if (wrong < 6) {
        o->temperature = bad_scales[wrong];
        return looks;
    }
    if (wrong < 12) o->softcap = bad_scales[wrong - 6];
    if (wrong >= 12 && wrong < 17) o->label_smoothing = bad_smoothings[wrong - 12];
    if (wrong >= 17 && wrong < 21) o->z_loss = bad_z_losses[wrong - 17];
    if (wrong >= 21 && wrong < 24) o->log_base = bad_bases[wrong - 21];
    if (wrong < 24) return is_of_labels(op);
    if (wrong == 24) o->size = 0;
    if (wrong == 25) o->size = sizeof *o - 1;
    if (wrong == 26) o->size = 4096 + sizeof(size_t);
    return looks;
}

static void bad_options(void)
{
    EACH_DTYPE
    EACH_OP
    for (int wrong = 0; wrong < N_BAD_OPTIONS; ++wrong) {
        softxent_block b = sound_block_of((enum op)op, d);
        b.options = &sound_options;
        const int concerns = spoil_options(&sound_options, wrong, (enum op)op);
        ABOUT("%s %s, bad option %d", op_name((enum op)op), dtype_name[d], wrong);
        if (concerns)
            check_refused((enum op)op, d, &b, SOFTXENT_BAD_ARGUMENT);
        else
            CHECK(call((enum op)op, d, &b, NULL) == SOFTXENT_OK);
    }
}

/* If an option is not one that the row and lane kernels handle, its call goes to the general kernel. This holds for any
 * byte of the struct that is not in a field of those options. */
static void unknown_options_are_declined(void)
{
    softxent_options o;
    unsigned char known[sizeof o];
#define KNOWN(field) memset(known + offsetof(softxent_options, field), 1, sizeof o.field)
    memset(known, 0, sizeof known);
    KNOWN(size), KNOWN(class_weight), KNOWN(label_smoothing), KNOWN(z_loss), KNOWN(log_base);
    CHECK(are_plain_options(NULL));
    for (size_t i = 0; i < sizeof o; ++i) {
        memset(&o, 0, sizeof o);
        CHECK(are_plain_options(&o));
        ((unsigned char *)&o)[i] = 1;
        ABOUT("byte %zu", i);
        CHECK(are_plain_options(&o) == known[i]);
    }
    memset(&o, 0, sizeof o);
    o.temperature = 1;
    CHECK(are_plain_options(&o));
#undef KNOWN
}

/* check_target refuses a sparse target that is none, and no target at all. A divergence takes no sparse target. */
static void targets_alone(void)
{
    EACH_DTYPE
    for (int wrong = 0; wrong < 8; ++wrong) {
        int (*check)(const softxent_block *, ptrdiff_t *) =
            d == F32 ? softxent_check_target_f32 : softxent_check_target_f64;
        softxent_block b = sound_block(d);
        ptrdiff_t bad = -5;
        ABOUT("%s, wrong %d", dtype_name[d], wrong);
        CHECK(check(&b, &bad) == SOFTXENT_BAD_ARGUMENT && bad == -5); /* labels alone */
        give_sparse(&b), b.logits = NULL;
        CHECK(check(&b, &bad) == SOFTXENT_OK && bad == -5);
        b = sound_block(d), give_sparse(&b);
        check_refused(KL, d, &b, SOFTXENT_BAD_ARGUMENT);
        b = sound_block(d);
        const int is_wrong = spoil_sparse(&b, wrong) && wrong != 2 && wrong != 3; /* labels and targets are not read */
        if (wrong != 0) CHECK((check(&b, &bad) == SOFTXENT_BAD_ARGUMENT) == is_wrong);
    }
}

/* Temperatures of samples are in the range of the option, and may stand beside an option of 1. */
static void good_temperatures(void)
{
    static const double limits[N] = {0x1p-100, 0x1p100, 1, 3};
    static const enum op ops[] = {LOSS, RANK, HVP};
    EACH_DTYPE
    for (int i = 0; i < 6; ++i) {
        softxent_block b = sound_block(d);
        double grads[N] = {77, 77, 77, 77};
        b.temperatures = limits, b.temperatures_stride = 1, b.options = &sound_options;
        sound_options.temperature = i < 3 ? 0 : 1;
        b.temperature_grad = grads, b.temperature_grad_stride = 1;
        ABOUT("%s %s", op_name(ops[i % 3]), dtype_name[d]);
        CHECK(call(ops[i % 3], d, &b, NULL) == SOFTXENT_OK);
        for (int j = 0; j < N; ++j) CHECK((grads[j] == 77) == (ops[i % 3] != LOSS)); /* only the loss has derivatives */
    }
}

/* The limits of the ranges are valid values. */
static void good_options(void)
{
    static const softxent_options good[] = {
        {sizeof(softxent_options), NULL, 0, 0x1p-100, 0, 0, 0},
        {sizeof(softxent_options), NULL, 1, 0x1p100, 0x1p-100, 0, -1},
        {sizeof(softxent_options), NULL, 1, 1, 0x1p100, DBL_MAX, DBL_MAX},
    };
    EACH_DTYPE
    EACH_OP
    for (int i = 0; i < 3; ++i) {
        softxent_block b = sound_block_of((enum op)op, d);
        sound_options = good[i], b.options = &sound_options;
        if (op == HVP) sound_options.softcap = sound_options.z_loss = 0;
        ABOUT("%s %s, options %d", op_name((enum op)op), dtype_name[d], i);
        CHECK(call((enum op)op, d, &b, NULL) == SOFTXENT_OK);
    }
}

/* Half precision is for the float functions. A type that does not exist is for no function. */
static void element_types(void)
{
    static const int types[] = {-1, SOFTXENT_REAL, SOFTXENT_FLOAT16, SOFTXENT_BFLOAT16, 3, 1000};
    EACH_DTYPE
    EACH_OP
    for (int i = 0; i < 6; ++i)
        for (int which = 0; which < 5; ++which) {
            softxent_block b = sound_block_of((enum op)op, d);
            int *const type[] = {&b.logits_type, &b.target_type, &b.direction_type, &b.loss_type, &b.out_type};
            *type[which] = types[i];
            const int is_there = types[i] == SOFTXENT_REAL || (d == F32 && i > 0 && i < 4);
            ABOUT("%s %s, type %d of array %d", op_name((enum op)op), dtype_name[d], types[i], which);
            if (is_there)
                CHECK(call((enum op)op, d, &b, NULL) == SOFTXENT_OK);
            else
                check_refused((enum op)op, d, &b, SOFTXENT_BAD_ARGUMENT);
        }
}

/* A Hessian needs a gradient and a valid kind. It takes no softcap and no z_loss, and neither does its product. */
static void second_derivatives(void)
{
    EACH_DTYPE
    for (int wrong = 0; wrong < 8; ++wrong) {
        softxent_block b = sound_block(d);
        b.options = &sound_options, b.hess = hess_output.x.data;
        CHECK(call(LOSS_GRAD, d, &b, NULL) == SOFTXENT_OK);
        b = sound_block(d);
        b.options = &sound_options;
        if (wrong < 6) b.hess = hess_output.x.data;
        if (wrong == 0) b.out = NULL;
        if (wrong == 1) b.hess_kind = -1;
        if (wrong == 2) b.hess_kind = SOFTXENT_LIGHTGBM + 1;
        if (wrong == 3 || wrong == 6) sound_options.softcap = 30;
        if (wrong == 4 || wrong == 7) sound_options.z_loss = 1e-4;
        if (wrong == 5) sound_options.softcap = -0x1p-200;
        ABOUT("%s, wrong %d", dtype_name[d], wrong);
        check_refused(wrong < 6 ? LOSS_GRAD : HVP, d, &b, SOFTXENT_BAD_ARGUMENT);
    }
}

/* A block for the loss is valid for the softmax family and for divergences too. They do not look at the fields of
 * labels, sparse targets and temperatures of samples, nor at any option but the temperature. The softmax family does
 * not look at weights and gradients either, but for the entropy; and the products with the Jacobian do not look at the
 * temperature and `where`. */
static void reused_block(void)
{
    static unsigned char clean[2][ARENA_BYTES], reused[2][ARENA_BYTES];
    static const double doubles[N_CLASSES] = {3, 5}, bad_temperatures[N];
    static const float floats[N_CLASSES] = {3, 5};
    static const unsigned char where[N_CLASSES] = {1, 0, 1, 1};
    EACH_DTYPE
    EACH_OP
    for (int with_options = 0; with_options < 2 && !is_of_labels((enum op)op); ++with_options) {
        const void *weights = d == F32 ? (const void *)floats : doubles;
        double grads[N] = {77, 77, 77, 77};
        softxent_block b = sound_block_of((enum op)op, d), plain = b;
        softxent_options only_temperature = sound_options;
        const size_t bytes = op == JACOBIAN ? N * N_CLASSES * N_CLASSES * size_of[d] : N * N_CLASSES * size_of[d];
        memset(clean, 0, sizeof clean), memset(reused, 0, sizeof reused);
        plain.labels = NULL, plain.out = clean[0], plain.loss = clean[1], plain.loss_stride = 1;
        b.out = reused[0], b.loss = reused[1], b.loss_stride = 1;
        b.accumulate = 1, b.grad_scale = 3, b.hess = hess_output.x.data;
        b.use_ignore_index = 1, b.ignore_index = get_label(&sound_problem, 0);
        if (!is_divergence((enum op)op))
            give_target(&b, &sound_problem), b.target = b.logits, b.target_holds_logits = 1;
        b.sample_weight = b.grad_output = weights;
        if (is_weighted((enum op)op))
            plain.accumulate = 1, plain.grad_scale = 3, plain.sample_weight = plain.grad_output = weights;
        b.classes = b.masses = b.logits, b.n_masses = -1, b.label_type = 99;
        b.temperatures = is_weighted((enum op)op) ? NULL : bad_temperatures, b.temperature_grad = grads,
        b.temperature_grad_stride = 1;
        if (with_options) {
            sound_options.temperature = only_temperature.temperature = 1.7;
            sound_options.class_weight = weights, sound_options.label_smoothing = 0.1, sound_options.softcap = 2;
            sound_options.z_loss = 0.3, sound_options.log_base = 0.7;
            b.options = &sound_options, plain.options = &only_temperature;
            b.where = plain.where = where, b.where_class_stride = plain.where_class_stride = 1;
        }
        if (op == JACOBIAN) plain.options = NULL, plain.where = NULL;
        ABOUT("%s %s, options %d", op_name((enum op)op), dtype_name[d], with_options);
        CHECK(call((enum op)op, d, &plain, NULL) == SOFTXENT_OK);
        CHECK(call((enum op)op, d, &b, NULL) == SOFTXENT_OK);
        CHECK(memcmp(clean[0], reused[0], bytes) == 0 && memcmp(clean[1], reused[1], bytes) == 0);
        check_untouched(&hess_output, 0);
        for (int i = 0; i < N; ++i) CHECK(grads[i] == 77);
    }
}

/* A struct as a program has it that was compiled with another header: exactly `size` bytes, with zeros in new fields.
 */
static void *struct_of_size(const void *known, size_t known_size, size_t size)
{
    char *other = calloc(1, size);
    if (!other) exit(2);
    memcpy(other, known, known_size < size ? known_size : size);
    memcpy(other, &size, sizeof size);
    return other;
}

/* Fields that a program's shorter struct lacks count as zero. Fields that a longer struct has in addition must be zero.
 */
static void structs_of_other_versions(void)
{
    static unsigned char known[2][ARENA_BYTES], other[2][ARENA_BYTES];
    const size_t block_size[] = {offsetof(softxent_block, parts), sizeof(softxent_block) + 64, 4096};
    const size_t options_size[] = {offsetof(softxent_options, softcap), sizeof(softxent_options) + 64, 4096};
    EACH_DTYPE
    EACH_OP
    for (int i = 0; i < 3; ++i) {
        softxent_block b = sound_block_of((enum op)op, d);
        sound_options.temperature = 1.7, b.options = &sound_options, b.out = known[0], b.loss = known[1];
        memset(known, 0, sizeof known), memset(other, 0, sizeof other);
        ABOUT("%s %s, sizes %d", op_name((enum op)op), dtype_name[d], i);
        CHECK(call((enum op)op, d, &b, NULL) == SOFTXENT_OK);
        b.out = other[0], b.loss = other[1];
        b.options = struct_of_size(&sound_options, sizeof sound_options, options_size[i]);
        char *block = struct_of_size(&b, sizeof b, block_size[i]);
        CHECK(call((enum op)op, d, (softxent_block *)(void *)block, NULL) == SOFTXENT_OK);
        CHECK(memcmp(known, other, sizeof known) == 0);
        memset(other, 77, sizeof other), memcpy(known, other, sizeof known);
        if (i > 0) {
            block[block_size[i] - 1] = 1;
            CHECK(call((enum op)op, d, (softxent_block *)(void *)block, NULL) == SOFTXENT_BAD_ARGUMENT);
            block[block_size[i] - 1] = 0, ((char *)b.options)[options_size[i] - 1] = 1;
            const int is_looked_at = op != JACOBIAN;
            CHECK(call((enum op)op, d, (softxent_block *)(void *)block, NULL) ==
                  (is_looked_at ? SOFTXENT_BAD_ARGUMENT : SOFTXENT_OK));
            CHECK(!is_looked_at || memcmp(known, other, sizeof known) == 0);
        }
        free(block), free((void *)b.options);
    }
}

/* An empty block needs no arrays. */
static void good_arguments(void)
{
    EACH_DTYPE
    EACH_OP
    {
        softxent_block b = sound_block_of((enum op)op, d);
        ABOUT("%s %s", op_name((enum op)op), dtype_name[d]);
        CHECK(call((enum op)op, d, &b, NULL) == SOFTXENT_OK);
        softxent_block empty;
        memset(&empty, 0, sizeof empty);
        empty.size = sizeof empty, empty.n_classes = 3;
        CHECK(call((enum op)op, d, &empty, NULL) == SOFTXENT_OK);
        b = sound_block_of((enum op)op, d);
        b.n_samples = 0;
        check_refused((enum op)op, d, &b, SOFTXENT_OK);
    }
}

/* An infinite class weight of an ignored sample's label is not multiplied by 0 into its gradient: in lanes and in rows.
 */
static void infinite_weights_of_ignored_samples(void)
{
    static float weights[N_CLASSES];
    static double wide_weights[N_CLASSES], out[N * N_CLASSES];
    static const unsigned char zeros[sizeof out];
    for (int k = 0; k < N_CLASSES; ++k) weights[k] = INFINITY, wide_weights[k] = INFINITY;
    EACH_DTYPE
    for (int in_rows = 0; in_rows < 2; ++in_rows) EACH_ISA
        {
            softxent_block b = sound_block(d);
            ABOUT("%s, in rows %d", dtype_name[d], in_rows);
            sound_options.class_weight = d == F32 ? (const void *)weights : wide_weights;
            sound_options.label_smoothing = 0.1, b.options = &sound_options;
            for (ptrdiff_t i = 0; i < N; ++i) set_label(&sound_problem, i, 1);
            b.isa = *isa, b.use_ignore_index = 1, b.ignore_index = 1, b.out = out;
            b.logits_sample_stride = b.out_sample_stride = in_rows ? N_CLASSES : 1;
            b.logits_class_stride = b.out_class_stride = in_rows ? 1 : N;
            memset(out, 1, sizeof out);
            CHECK(call(LOSS_GRAD, d, &b, NULL) == SOFTXENT_OK);
            CHECK(memcmp(out, zeros, N * N_CLASSES * size_of[d]) == 0);
        }
}

static void check_labels(void)
{
    for (int type = SOFTXENT_INT8; type <= SOFTXENT_UINT64; ++type) {
        problem p = problem_of(F32, 20, 7, layouts[0], 1);
        p.label_type = type, p.labels = array_of(arenas[LABELS], 1, layouts[6], p.n, 1, label_size[type]);
        for (ptrdiff_t i = 0; i < p.n; ++i) set_label(&p, i, i % 4 ? i % 7 : 99);
        softxent_block b = block_of(&p, NULL);
        give_labels(&b, &p);
        b.logits = NULL; /* the labels are the only array that is read */
        ptrdiff_t counted = -6, bad = -5;
        ABOUT("label type %d", type);
        CHECK(softxent_check_labels(&b, &counted, &bad) == SOFTXENT_BAD_LABEL && bad == 0 && counted == -6);
        b.use_ignore_index = 1, b.ignore_index = 99, bad = -5;
        CHECK(softxent_check_labels(&b, &counted, &bad) == SOFTXENT_OK && counted == 15 && bad == -5);
        CHECK(softxent_check_labels(&b, NULL, NULL) == SOFTXENT_OK);
        set_label(&p, 13, 7);
        CHECK(softxent_check_labels(&b, &counted, &bad) == SOFTXENT_BAD_LABEL && bad == 13);
        b.n_samples = 0;
        CHECK(softxent_check_labels(&b, &counted, &bad) == SOFTXENT_OK && counted == 0);
        for (int wrong = 0; wrong < 9; ++wrong) {
            b.n_samples = 20;
            softxent_block spoiled = b;
            counted = -6;
            if (wrong == 5 || !spoil(&spoiled, wrong, LOSS)) continue; /* the fifth array: the logits */
            ABOUT("label type %d, wrong %d", type, wrong);
            CHECK(softxent_check_labels(&spoiled, &counted, NULL) == SOFTXENT_BAD_ARGUMENT && counted == -6);
        }
    }
    CHECK(softxent_check_labels(NULL, NULL, NULL) == SOFTXENT_BAD_ARGUMENT);
}

/* ---- The total weight ------------------------------------------------------------------------------------------- */

static int total_weight_of(enum dtype d, const softxent_block *b, double *total, ptrdiff_t *bad)
{
    return d == F32 ? softxent_total_weight_f32(b, total, bad) : softxent_total_weight_f64(b, total, bad);
}

/* total_weight is the sum of s_n w_y, or of s_n if there are targets, over the samples that are not ignored. */
static void total_weight(void)
{
    EACH_DTYPE
    for (int features = 0; features <= ALL_FEATURES; ++features) {
        if (features & ~(HAS_TARGET | HAS_SPARSE | HAS_CLASS_WEIGHT | HAS_SAMPLE_WEIGHT | HAS_IGNORE_INDEX)) continue;
        general g = general_of(d, features, 33, 70, layouts[features % N_LAYOUTS], 1);
        softxent_block b = general_block(&g, NULL);
        b.logits = NULL; /* the labels and the weights are the only arrays that are read */
        long double exact = 0;
        double total = -6;
        ptrdiff_t bad = -5;
        for (ptrdiff_t i = 0; i < g.p.n; ++i) {
            const ptrdiff_t y = get_label(&g.p, i);
            const long double s = features & HAS_SAMPLE_WEIGHT ? entry(&g.sample_weight, i, 0) : 1;
            if (features & (HAS_TARGET | HAS_SPARSE))
                exact += s;
            else if (!g.p.use_ignore_index || y != g.p.ignore_index)
                exact += g.o.class_weight ? s * entry(&g.class_weight, 0, y) : s;
        }
        ABOUT("%s, has %x", dtype_name[d], (unsigned)features);
        CHECK(total_weight_of(d, &b, &total, &bad) == SOFTXENT_OK && bad == -5);
        CHECK(is_near(total, exact, 2 * eps_of[F64] * exact));
        CHECK(total_weight_of(d, &b, NULL, &bad) == SOFTXENT_BAD_ARGUMENT && bad == -5);
        b.n_samples = 0, b.labels = NULL, b.target = NULL, b.classes = b.masses = NULL;
        CHECK(total_weight_of(d, &b, &total, &bad) == SOFTXENT_OK && total == 0);
    }
}

static void total_weight_refusals(void)
{
    EACH_DTYPE
    for (int wrong = 0; wrong < 23; ++wrong) {
        softxent_block b = sound_block(d);
        double total = -6;
        ptrdiff_t bad = -5;
        b.options = &sound_options;
        if (wrong == 13 || wrong == 14) sound_options.size = wrong == 13 ? 0 : sizeof sound_options - 1;
        if (wrong > 14) spoil_sparse(&b, wrong - 15);
        if (wrong == 5 || (wrong < N_PLAIN_WRONGS && !spoil(&b, wrong, LOSS)) || wrong == 9)
            continue; /* logits and outputs */
        ABOUT("%s, wrong %d", dtype_name[d], wrong);
        CHECK(total_weight_of(d, &b, &total, &bad) == SOFTXENT_BAD_ARGUMENT && total == -6 && bad == -5);
    }
    EACH_DTYPE
    {
        softxent_block b = sound_block(d);
        double total = -6;
        ptrdiff_t bad = -5;
        sound_problem.label_type = SOFTXENT_INT16;
        sound_problem.labels = array_of(arenas[LABELS], 1, layouts[0], N, 1, sizeof(int16_t));
        for (ptrdiff_t i = 0; i < N; ++i) set_label(&sound_problem, i, i);
        give_labels(&b, &sound_problem);
        set_label(&sound_problem, 2, N_CLASSES), set_label(&sound_problem, 3, -1);
        CHECK(total_weight_of(d, &b, &total, &bad) == SOFTXENT_BAD_LABEL && total == -6 && bad == 2);
        CHECK(total_weight_of(d, &b, &total, NULL) == SOFTXENT_BAD_LABEL);
        CHECK(total_weight_of(d, NULL, &total, NULL) == SOFTXENT_BAD_ARGUMENT);
    }
}

/* The terms are 1, and then 10^6 times 2^-54. Without a carry, none of the small ones would change the sum. */
static void total_weight_is_compensated(void)
{
    static const float floats[2] = {1, 0x1p-54f};
    static const double doubles[2] = {1, 0x1p-54};
    static uint8_t labels[1000001];
    memset(labels + 1, 1, sizeof labels - 1);
    EACH_DTYPE
    {
        softxent_block b = sound_block(d);
        double total = 0;
        b.n_samples = (ptrdiff_t)sizeof labels, b.labels = labels, b.labels_stride = 1, b.label_type = SOFTXENT_UINT8;
        b.options = &sound_options, sound_options.class_weight = d == F32 ? (const void *)floats : doubles;
        CHECK(total_weight_of(d, &b, &total, NULL) == SOFTXENT_OK);
        CHECK(total == 1 + 1e6 * 0x1p-54);
    }
}

/* ---- The instruction set --------------------------------------------------------------------------------------- */

/* The name of the selected instruction set if no name is given. An empty string stands for SOFTXENT_BAD_ISA. */
static const char *selected_by_environment(const char *value)
{
    const softxent_isa *isa = NULL;
#ifdef _WIN32
    _putenv_s("SOFTXENT_ISA", value ? value : ""); /* an empty variable counts as no variable */
#else
    if (value)
        setenv("SOFTXENT_ISA", value, 1);
    else
        unsetenv("SOFTXENT_ISA");
#endif
    const int status = softxent_isa_select(NULL, &isa);
    CHECK(status == SOFTXENT_OK ? isa != NULL : status == SOFTXENT_BAD_ISA && isa == NULL);
    return isa ? softxent_isa_name(isa) : "";
}

static void isa_by_name(void)
{
    static const char *const unknown[] = {"sse9", "AVX2", "avx", "avx5122", "scalar "};
    const softxent_isa *isa = isas[0];
    CHECK(n_isas >= 1 && strcmp(softxent_isa_usable(n_isas - 1), "scalar") == 0);
    CHECK(softxent_isa_usable(n_isas) == NULL && softxent_isa_usable(n_isas + 7) == NULL);
    for (int i = 0; i < n_isas; ++i) CHECK(strcmp(softxent_isa_name(isas[i]), softxent_isa_usable(i)) == 0);
    for (int i = 0; i < 5; ++i) {
        ABOUT("%s", unknown[i]);
        CHECK(softxent_isa_select(unknown[i], &isa) == SOFTXENT_BAD_ISA);
        CHECK(isa == isas[0]);
    }
    CHECK(softxent_isa_select("scalar", NULL) == SOFTXENT_BAD_ARGUMENT);
    CHECK(softxent_isa_select(NULL, NULL) == SOFTXENT_BAD_ARGUMENT);
    CHECK(softxent_isa_name(NULL) == NULL);
    CHECK(softxent_isa_usable(-1) == NULL && softxent_isa_usable(INT_MIN) == NULL);
    CHECK(softxent_isa_usable(100) == NULL && softxent_isa_usable(INT_MAX) == NULL);
#if defined(__x86_64__)
    CHECK(softxent_isa_select("neon", &isa) == SOFTXENT_BAD_ISA);
#elif defined(__aarch64__)
    CHECK(softxent_isa_select("neon", &isa) == SOFTXENT_OK);
    CHECK(softxent_isa_select("avx2", &isa) == SOFTXENT_BAD_ISA);
#endif
}

static void isa_by_environment(void)
{
    CHECK(strcmp(selected_by_environment(NULL), softxent_isa_usable(0)) == 0);
    for (int i = 0; i < n_isas; ++i)
        CHECK(strcmp(selected_by_environment(softxent_isa_usable(i)), softxent_isa_usable(i)) == 0);
    CHECK(strcmp(selected_by_environment(""), softxent_isa_usable(0)) == 0);
    CHECK(strcmp(selected_by_environment("nonsense"), "") == 0);

    /* A block without an instruction set asks the environment too. A block with one does not. */
    softxent_block b = sound_block(F32);
    EACH_OP
    {
        b = sound_block_of((enum op)op, F32);
        check_refused((enum op)op, F32, &b, SOFTXENT_BAD_ISA);
    }
    b = sound_block(F32), b.isa = isas[0];
    CHECK(call(LOSS_GRAD, F32, &b, NULL) == SOFTXENT_OK);
    const softxent_isa *isa = NULL;
    CHECK(softxent_isa_select("scalar", &isa) == SOFTXENT_OK && strcmp(softxent_isa_name(isa), "scalar") == 0);
    CHECK(strcmp(selected_by_environment(NULL), softxent_isa_usable(0)) == 0);
}

static void status_in_words(void)
{
    for (int status = SOFTXENT_OK - 1; status <= SOFTXENT_BAD_TARGET + 1; ++status) {
        ABOUT("status %d", status);
        CHECK(softxent_strerror(status) && *softxent_strerror(status));
        for (int other = SOFTXENT_OK; other < status && status <= SOFTXENT_BAD_TARGET; ++other)
            CHECK(strcmp(softxent_strerror(status), softxent_strerror(other)) != 0);
    }
}

/* ---- Parts ------------------------------------------------------------------------------------------------------ */

enum { SHARD = 30, N_PART_WRONGS = 15, UNSAID = -5 };
static const char *const part_calls[] = {"begin", "merge", "finish"};
static softxent_part_f64 own_parts[2 * N];

/* A block of some of the classes, valid for begin, merge and finish. */
static softxent_block sound_part(enum dtype d)
{
    softxent_block b = sound_block(d);
    b.n_classes = SHARD, b.first_class = N_CLASSES - SHARD, b.all_classes = N_CLASSES;
    b.parts = own_parts, b.other_parts = own_parts + N;
    memset(own_parts, 0x5a, sizeof own_parts);
    return b;
}

/* Makes one thing wrong, like spoil(), and returns whether that is wrong for the function. */
static int spoil_part(softxent_block *b, int wrong, int which)
{
    const int reads_labels = which != 1;
    b->options = &sound_options;
    switch (wrong) {
    case 0: b->size -= 1; return 1;
    case 1: b->n_samples = -1; return 1;
    case 2: b->n_classes = 0; return 1;
    case 3: b->parts = NULL; return 1;
    case 4: b->other_parts = NULL; return which == 1;
    case 5: b->logits = NULL; return reads_labels;
    case 6: b->labels = NULL; return reads_labels;
    case 7: b->target = b->logits; return reads_labels;
    case 8: b->first_class = -1; return reads_labels;
    case 9: b->first_class += 1; return reads_labels; /* beyond all classes */
    case 10: b->all_classes = PTRDIFF_MIN; return reads_labels;
    case 11: sound_options.class_weight = b->logits; return reads_labels;
    case 12: sound_options.label_smoothing = 0.1; return reads_labels;
    case 13: sound_options.temperature = -1; return 1;
    default: b->loss = b->out = NULL; return which == 2;
    }
}

static void parts_bad_arguments(void)
{
    EACH_DTYPE
    for (int which = 0; which < 3; ++which)
        for (int wrong = 0; wrong < N_PART_WRONGS; ++wrong) {
            softxent_block b = sound_part(d);
            softxent_part_f64 before[2 * N];
            memcpy(before, own_parts, sizeof before);
            ptrdiff_t bad = -5;
            ABOUT("%s %s, wrong %d", part_calls[which], dtype_name[d], wrong);
            if (!spoil_part(&b, wrong, which)) continue;
            CHECK(call_of_parts(part_calls[which], d, &b, &bad) == SOFTXENT_BAD_ARGUMENT && bad == -5);
            CHECK(memcmp(before, own_parts, sizeof before) == 0);
            check_untouched(&loss_output, 0);
            check_untouched(&out_output, 0);
        }
}

/* check_labels and total_weight accept a block with parts only if it is a valid range of all classes. Class weights are
 * refused, because they would be read beyond their end. */
static void parts_labels_alone(void)
{
    EACH_DTYPE
    for (int wrong = 8; wrong < 13; ++wrong) {
        softxent_block b = sound_part(d);
        ptrdiff_t counted = UNSAID, bad = UNSAID;
        double total = UNSAID;
        ABOUT("%s, wrong %d", dtype_name[d], wrong);
        spoil_part(&b, wrong, 0);
        if (wrong == 10) b.first_class = PTRDIFF_MIN, b.all_classes = PTRDIFF_MAX;
        CHECK(softxent_check_labels(&b, &counted, &bad) ==
              (wrong == 11 || wrong == 12 ? SOFTXENT_OK : SOFTXENT_BAD_ARGUMENT));
        CHECK(total_weight_of(d, &b, &total, &bad) == SOFTXENT_BAD_ARGUMENT && total == UNSAID && bad == UNSAID);
    }
}

/* Labels are among all classes, not among those of the block. The first label beyond all classes is reported, and
 * nothing is written from its sample on. */
static void parts_labels(void)
{
    EACH_DTYPE
    for (int which = 0; which < 3; which += 2) EACH_ISA
        {
            softxent_block b = sound_part(d);
            memset(own_parts, 0, sizeof own_parts);
            ptrdiff_t bad = -5;
            b.isa = *isa;
            ABOUT("%s %s", part_calls[which], dtype_name[d]);
            for (ptrdiff_t i = 0; i < N; ++i) set_label(&sound_problem, i, i); /* none of them here */
            CHECK(call_of_parts(part_calls[which], d, &b, &bad) == SOFTXENT_OK && bad == -5);
            set_label(&sound_problem, 2, N_CLASSES);
            b = sound_part(d), b.isa = *isa;
            set_label(&sound_problem, 2, N_CLASSES);
            CHECK(call_of_parts(part_calls[which], d, &b, &bad) == SOFTXENT_BAD_LABEL && bad == 2);
            if (which == 2) check_untouched(&loss_output, 2);
        }
}

int main(void)
{
    make_arenas();
    find_isas();
    RUN_TEST(bad_arguments);
    RUN_TEST(good_arguments);
    RUN_TEST(reused_block);
    RUN_TEST(bad_options);
    RUN_TEST(unknown_options_are_declined);
    RUN_TEST(targets_alone);
    RUN_TEST(good_temperatures);
    RUN_TEST(good_options);
    RUN_TEST(structs_of_other_versions);
    RUN_TEST(element_types);
    RUN_TEST(second_derivatives);
    RUN_TEST(infinite_weights_of_ignored_samples);
    RUN_TEST(check_labels);
    RUN_TEST(total_weight);
    RUN_TEST(total_weight_refusals);
    RUN_TEST(total_weight_is_compensated);
    RUN_TEST(isa_by_name);
    RUN_TEST(isa_by_environment);
    RUN_TEST(status_in_words);
    RUN_TEST(parts_bad_arguments);
    RUN_TEST(parts_labels_alone);
    RUN_TEST(parts_labels);
    return report();
}
