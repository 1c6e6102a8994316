/* problem.h - a softmax problem of any size, dtype and layout in guarded memory, its answer in long double, and the
 * bounds on the distance between an answer and that one, which docs/accuracy.md states. The calls of the library are in
 * the tests. */
#ifndef SOFTXENT_TESTS_PROBLEM_H
#define SOFTXENT_TESTS_PROBLEM_H

#include "arena.h"

#include <float.h>
#include <math.h>

#include "check.h"
#include "functions.h"
#include "half.h"
#include "softxent.h"
#include "wide.h"

/* ---- All dtypes through one door ------------------------------------------------------------------------------- */

/* The element types of arrays. The first two are also the types of the arithmetic. */
enum dtype { F32, F64, F16, BF16 };

static const char *const dtype_name[] = {"f32", "f64", "f16", "bf16"};
static const size_t size_of[] = {sizeof(float), sizeof(double), 2, 2};
static const long double eps_of[] = {0x1p-23L, 0x1p-52L}, min_normal_of[] = {FLT_MIN, DBL_MIN};

static inline long double get(enum dtype d, const void *p, ptrdiff_t i)
{
    switch (d) {
    case F32: return ((const float *)p)[i];
    case F64: return ((const double *)p)[i];
    default: return value_of_half(d == F16 ? f16_format : bf16_format, ((const uint16_t *)p)[i]);
    }
}

static inline void set(enum dtype d, void *p, ptrdiff_t i, long double x)
{
    switch (d) {
    case F32: ((float *)p)[i] = (float)x; break;
    case F64: ((double *)p)[i] = (double)x; break;
    default: ((uint16_t *)p)[i] = nearest_half(d == F16 ? f16_format : bf16_format, (double)x); break;
    }
}

/* The library's name of an element type. */
static inline int element_type(enum dtype d)
{
    return d == F16 ? SOFTXENT_FLOAT16 : d == BF16 ? SOFTXENT_BFLOAT16 : SOFTXENT_REAL;
}

/* The operations that the tests ask for. They are the library's, but a loss alone and a loss with its gradient are two
 * operations here. */
enum op {
    LOSS = OP_CROSS_ENTROPY,
    RANK = OP_RANK,
    HVP = OP_HVP,
    SOFTMAX = OP_SOFTMAX,
    LOG_SOFTMAX = OP_LOG_SOFTMAX,
    LOGSUMEXP = OP_LOGSUMEXP,
    ENTROPY = OP_ENTROPY,
    KL = OP_KL,
    JVP = OP_JVP,
    LOG_JVP = OP_LOG_JVP,
    LOG_VJP = OP_LOG_VJP,
    JACOBIAN = OP_JACOBIAN,
    LOSS_GRAD = N_OPS,
    ENTROPY_GRAD,
    KL_GRAD,
    END_OF_OPS
};

/* EACH_OP goes up to JACOBIAN. The four behind it, parts and targets by themselves, have tests of their own. */
_Static_assert(LOSS == 0 && JACOBIAN == 11 && N_OPS == JACOBIAN + 5,
               "a new operation has its place in `enum op`, before JACOBIAN here and in ops.h");

static inline int is_entropy(enum op op) { return op == ENTROPY || op == ENTROPY_GRAD; }

static inline int is_divergence(enum op op) { return op == KL || op == KL_GRAD; }

static inline softxent_op operation_of(enum op op)
{
    return op == LOSS_GRAD      ? OP_CROSS_ENTROPY
           : op == ENTROPY_GRAD ? OP_ENTROPY
           : op == KL_GRAD      ? OP_KL
                                : (softxent_op)op;
}

#define EACH_OP                                                                                                        \
    for (int op = LOSS; op < END_OF_OPS; ++op)                                                                         \
        if (op <= JACOBIAN || op >= LOSS_GRAD)

/* What each operation needs and looks at. This is stated here again, and not read from the library's list, so that the
 * tests notice an error in that list. */
static inline int has_loss_of(enum op op) { return op == LOSS || op == LOSS_GRAD || op == RANK; }

static inline int has_output(enum op op)
{
    return op != LOSS && op != RANK && op != LOGSUMEXP && op != ENTROPY && op != KL;
}

/* Whether the operation writes into `loss`. */
static inline int writes_loss(enum op op)
{
    return has_loss_of(op) || op == LOGSUMEXP || is_entropy(op) || is_divergence(op);
}

/* Whether the operation looks at labels, at every kind of target, and at all options. */
static inline int is_of_labels(enum op op) { return has_loss_of(op) || op == HVP; }

/* Whether the operation looks at no label, no target and none of their options. */
static inline int is_of_logits(enum op op) { return !is_of_labels(op) && !is_divergence(op); }

/* Whether the operation looks at the weights of samples. */
static inline int is_weighted(enum op op) { return is_of_labels(op) || is_entropy(op) || is_divergence(op); }

static inline const char *op_name(enum op op)
{
    return op == LOSS_GRAD      ? "cross_entropy, with its gradient"
           : op == ENTROPY_GRAD ? "entropy, with its gradient"
           : op == KL_GRAD      ? "kl_divergence, with its gradient"
                                : functions_of(operation_of(op))->name;
}

static inline int call(enum op op, enum dtype d, const softxent_block *b, ptrdiff_t *bad)
{
    return call_function(operation_of(op), d == F64, b, bad);
}

/* ---- Layouts --------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    int channels_first, pad, step, flip; /* flip: 1 if the classes run backwards in memory, 2 if the samples do */
} layout;

static const layout layouts[] = {
    {"rows", 0, 0, 1, 0},
    {"channels first", 1, 0, 1, 0},
    {"padded rows", 0, 5, 1, 0},
    {"backward classes", 0, 0, 1, 1},
    {"backward samples", 0, 3, 1, 2},
    {"padded channels first", 1, 3, 1, 0},
    {"every third", 0, 0, 3, 0},
};

enum { N_LAYOUTS = sizeof layouts / sizeof layouts[0] };

/* A strided array of n samples of n_classes. `data` points to class 0 of sample 0, which may lie anywhere in the array.
 */
typedef struct {
    unsigned char *base, *data;
    size_t bytes;
    ptrdiff_t n, n_classes, sample_stride, class_stride;
    size_t size;
    enum dtype d; /* of an array of reals */
} array;

static inline array array_of(arena a, int at_end, layout l, ptrdiff_t n, ptrdiff_t n_classes, size_t size)
{
    array x = {NULL, NULL, 0, n, n_classes, 0, 0, size, F32};
    x.sample_stride = l.channels_first ? l.step : (n_classes + l.pad) * l.step;
    x.class_stride = l.channels_first ? (n + l.pad) * l.step : l.step;
    const ptrdiff_t last = (n - 1) * x.sample_stride + (n_classes - 1) * x.class_stride;
    ptrdiff_t first = 0;
    if (l.flip == 1) first = (n_classes - 1) * x.class_stride, x.class_stride = -x.class_stride;
    if (l.flip == 2) first = (n - 1) * x.sample_stride, x.sample_stride = -x.sample_stride;
    x.bytes = (size_t)(last + 1) * size;
    x.base = (unsigned char *)arena_place(a, x.bytes, at_end);
    x.data = x.base + first * (ptrdiff_t)size;
    return x;
}

static inline ptrdiff_t index_in(const array *x, ptrdiff_t i, ptrdiff_t k)
{
    return i * x->sample_stride + k * x->class_stride;
}

static inline array reals_of(arena a, int at_end, layout l, ptrdiff_t n, ptrdiff_t n_classes, enum dtype d)
{
    array x = array_of(a, at_end, l, n, n_classes, size_of[d]);
    x.d = d;
    return x;
}

static inline long double entry(const array *x, ptrdiff_t i, ptrdiff_t k)
{
    return get(x->d, x->data, index_in(x, i, k));
}

static inline void put(const array *x, ptrdiff_t i, ptrdiff_t k, long double value)
{
    set(x->d, x->data, index_in(x, i, k), value);
}

/* ---- The memory of one problem --------------------------------------------------------------------------------- */

/* A sample of so many classes has three tiles in the row kernel, whatever the width of the vectors. */
enum { MAX_SAMPLES = 33, MAX_CLASSES = 2 * TILE * MOST_LANES + 1 };
enum { MAX_ENTRIES = 2 * MAX_SAMPLES * MAX_CLASSES }; /* of an output: the Jacobian of 300 classes has that many */

/* Room for "every third" of the largest problem, and for the canaries before and after an output. */
enum { MARGIN = 256, ARENA_BYTES = (3 * MAX_SAMPLES * (MAX_CLASSES + 8)) * (int)sizeof(double) + MARGIN };

enum { LOGITS, TARGET, LABELS, GRAD_OUTPUT, CLASS_WEIGHT, SAMPLE_WEIGHT, WHERE, DIRECTION, CLASSES, MASSES };
enum { TEMPERATURES = MASSES + 1, LOSS_OUT, OUT, HESS_OUT, TEMPERATURE_GRAD, N_ARENAS };

static arena arenas[N_ARENAS];

static inline void make_arenas(void)
{
    for (int i = 0; i < N_ARENAS; ++i) arenas[i] = arena_of(ARENA_BYTES);
}

/* An output with the memory around it, as it was before a call. */
typedef struct {
    array x;
    unsigned char *copy, *from;
    size_t bytes;
} output;

static _Alignas(double) unsigned char output_copies[4][ARENA_BYTES + 2 * MARGIN];

/* Checks that the call changed the output's memory only where the output's elements lie. */
static inline output snapshot(array x, arena a, int which)
{
    output o = {x, output_copies[which], x.base, x.bytes};
    if (o.from >= a.start + MARGIN) o.from -= MARGIN, o.bytes += MARGIN;
    if (x.base + x.bytes + MARGIN <= a.end) o.bytes += MARGIN;
    memcpy(o.copy, o.from, o.bytes);
    return o;
}

/* Makes an output that holds `value`, with canaries before, between and after its elements. */
static inline output output_of(array x, long double value, arena a, int which)
{
    output o = snapshot(x, a, which);
    memset(o.from, CANARY, o.bytes);
    for (ptrdiff_t i = 0; i < x.n; ++i)
        for (ptrdiff_t k = 0; k < x.n_classes; ++k) put(&x, i, k, value);
    return snapshot(x, a, which);
}

/* Checks that only the samples before `done` have been written. */
static inline void check_untouched(const output *o, ptrdiff_t done)
{
    const array *x = &o->x;
    const ptrdiff_t zero = x->data - o->from; /* of class 0, sample 0 */
    for (ptrdiff_t i = 0; i < done; ++i)
        for (ptrdiff_t k = 0; k < x->n_classes; ++k) {
            const ptrdiff_t at = zero + index_in(x, i, k) * (ptrdiff_t)x->size;
            memcpy(o->copy + at, o->from + at, x->size);
        }
    CHECK(memcmp(o->copy, o->from, o->bytes) == 0);
}

/* ---- A problem and its exact answer ---------------------------------------------------------------------------- */

typedef struct {
    enum dtype d;
    ptrdiff_t n, n_classes;
    array logits, target, grad_output, labels;
    int label_type;
    double grad_scale;
    int use_ignore_index;
    int64_t ignore_index;
    const softxent_options *options;
} problem;

/* The numbers of one sample: the logits as they were stored, e = exp(z - m), and the sums of these. */
typedef struct {
    long double z[MAX_CLASSES], e[MAX_CLASSES], t[MAX_CLASSES];
    long double max, sum_exp, log_sum, lead, weight;
    ptrdiff_t label;
    int ignored, has_nan, is_nan; /* is_nan: a logit is nan, or the maximum is not finite */
} answer;

/* Makes logits of many kinds: as an untrained and a trained network gives them, far from 0, all equal, with ties, and
 * far apart. */
static inline void draw_logits(problem *p, ptrdiff_t i)
{
    const unsigned kind = (unsigned)(random_bits() % 8);
    const double offset = kind == 2 ? 1e4 : kind == 3 ? -1e8 : kind == 4 ? -63.9 : kind == 7 ? 150 : 0;
    const double spread = kind == 1 ? 60 : kind == 3 ? 40 : 4;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        double z = kind == 5 ? 1.5 : offset + random_between(-spread, spread);
        if (kind == 6) z = floor(z);
        put(&p->logits, i, k, z);
    }
    if (kind == 0 || kind == 4) { /* a confident sample */
        const ptrdiff_t k = (ptrdiff_t)(random_bits() % (uint64_t)p->n_classes);
        put(&p->logits, i, k, offset + random_between(5, 40));
    }
}

static inline int64_t get_integer(int type, const void *p, ptrdiff_t i)
{
    switch (type) {
    case SOFTXENT_INT8: return ((const int8_t *)p)[i];
    case SOFTXENT_INT16: return ((const int16_t *)p)[i];
    case SOFTXENT_INT32: return ((const int32_t *)p)[i];
    case SOFTXENT_INT64: return ((const int64_t *)p)[i];
    case SOFTXENT_UINT8: return ((const uint8_t *)p)[i];
    case SOFTXENT_UINT16: return ((const uint16_t *)p)[i];
    case SOFTXENT_UINT32: return ((const uint32_t *)p)[i];
    default: return (int64_t)((const uint64_t *)p)[i];
    }
}

static inline void set_integer(int type, void *p, ptrdiff_t i, int64_t y)
{
    switch (type) {
    case SOFTXENT_INT8: ((int8_t *)p)[i] = (int8_t)y; break;
    case SOFTXENT_INT16: ((int16_t *)p)[i] = (int16_t)y; break;
    case SOFTXENT_INT32: ((int32_t *)p)[i] = (int32_t)y; break;
    case SOFTXENT_INT64: ((int64_t *)p)[i] = y; break;
    case SOFTXENT_UINT8: ((uint8_t *)p)[i] = (uint8_t)y; break;
    case SOFTXENT_UINT16: ((uint16_t *)p)[i] = (uint16_t)y; break;
    case SOFTXENT_UINT32: ((uint32_t *)p)[i] = (uint32_t)y; break;
    default: ((uint64_t *)p)[i] = (uint64_t)y; break;
    }
}

static inline ptrdiff_t get_label(const problem *p, ptrdiff_t i)
{
    return (ptrdiff_t)get_integer(p->label_type, p->labels.data, i * p->labels.sample_stride);
}

static inline void set_label(problem *p, ptrdiff_t i, int64_t y)
{
    set_integer(p->label_type, p->labels.data, i * p->labels.sample_stride, y);
}

static const size_t label_size[] = {1, 2, 4, 8, 1, 2, 4, 8};
static const int64_t label_max[] = {INT8_MAX,  INT16_MAX,  INT32_MAX,  INT64_MAX,
                                    UINT8_MAX, UINT16_MAX, UINT32_MAX, INT64_MAX};

/* Makes a target. A third of its entries are 0. Its sum is not 1, because no operation assumes that. */
static inline void draw_target(problem *p, ptrdiff_t i)
{
    const long double scale = 1 + random_between(0, 1) / (double)p->n_classes;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k)
        put(&p->target, i, k, random_bits() % 3 ? scale * random_between(0, 2) / (double)p->n_classes : 0);
}

static inline problem typed_problem_of(enum dtype d, enum dtype logits, enum dtype target, ptrdiff_t n,
                                       ptrdiff_t n_classes, layout l, int at_end)
{
    const layout targets = layouts[(n + n_classes) % N_LAYOUTS]; /* as a rule another sample's */
    problem p;
    memset(&p, 0, sizeof p);
    p.d = d, p.n = n, p.n_classes = n_classes, p.grad_scale = 1;
    p.label_type = (int)(random_bits() % 8);
    if (label_max[p.label_type] < n_classes) p.label_type |= SOFTXENT_INT16;
    p.logits = reals_of(arenas[LOGITS], at_end, l, n, n_classes, logits);
    p.target = reals_of(arenas[TARGET], at_end, targets, n, n_classes, target);
    p.labels = array_of(arenas[LABELS], at_end, l, n, 1, label_size[p.label_type]);
    p.grad_output = reals_of(arenas[GRAD_OUTPUT], at_end, l, n, 1, d);
    for (ptrdiff_t i = 0; i < n; ++i) {
        const int64_t classes = n_classes <= label_max[p.label_type] ? n_classes : label_max[p.label_type];
        draw_logits(&p, i), draw_target(&p, i);
        set_label(&p, i, (int64_t)(random_bits() % (uint64_t)classes));
        put(&p.grad_output, i, 0, random_between(-2, 2));
    }
    return p;
}

static inline problem problem_of(enum dtype d, ptrdiff_t n, ptrdiff_t n_classes, layout l, int at_end)
{
    return typed_problem_of(d, d, d, n, n_classes, l, at_end);
}

static answer answers[MAX_SAMPLES];

static inline void solve_sample(const problem *p, ptrdiff_t i, answer *a)
{
    long double rest = 0;
    ptrdiff_t top = 0;
    a->max = -INFINITY, a->weight = 0, a->lead = INFINITY, a->has_nan = 0;
    a->label = get_label(p, i), a->ignored = p->use_ignore_index && a->label == p->ignore_index;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        a->z[k] = entry(&p->logits, i, k);
        a->t[k] = entry(&p->target, i, k);
        a->weight += a->t[k];
        a->has_nan |= isnan(a->z[k]) != 0;
        if (a->z[k] > a->max) a->max = a->z[k], top = k;
    }
    a->is_nan = a->has_nan || isinf(a->max);
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        a->e[k] = wide_exp(a->z[k] - a->max);
        if (k == top) continue;
        rest += a->e[k];
        if (a->max - a->z[k] < a->lead) a->lead = a->max - a->z[k];
    }
    if (isinf(a->lead)) a->lead = 0; /* no other class counts: the answers are exact */
    a->sum_exp = 1 + rest, a->log_sum = log1pl(rest);
}

static inline void solve(const problem *p)
{
    for (ptrdiff_t i = 0; i < p->n; ++i) solve_sample(p, i, &answers[i]);
}

/* How far class k lies below the maximum, as a factor of its error. A class at -inf is exactly absent, and has the
 * factor 0. */
static inline long double below(const answer *a, ptrdiff_t k) { return isinf(a->z[k]) ? 0 : a->max - a->z[k]; }

/* ---- Expectations ---------------------------------------------------------------------------------------------- */

/* The value that each output should have, and the error that is allowed. */
typedef struct {
    long double loss[MAX_SAMPLES], loss_error[MAX_SAMPLES];
    long double out[MAX_ENTRIES], out_error[MAX_ENTRIES];
    long double hess[MAX_ENTRIES], hess_error[MAX_ENTRIES];
    long double temperature_grad[MAX_SAMPLES], temperature_grad_error[MAX_SAMPLES];
} expectation;

static expectation expected;

/* Adds what a result may lose if an exp below the smallest normal number became 0 before it was scaled by the upstream
 * gradient. */
static inline long double flushed(const problem *p, long double scale)
{
    return min_normal_of[p->d] * (1 + fabsl(scale));
}

/* The upstream gradient, rounded to the dtype as the library uses it. */
static inline long double upstream_of(const problem *p, ptrdiff_t i, int with_grad_output)
{
    const long double g = with_grad_output ? entry(&p->grad_output, i, 0) : 1;
    const double product = p->grad_scale * (double)g;
    return p->d == F32 ? (float)product : product;
}

/* A label that is no class has no answer: the call refuses it. */
static inline int is_class(ptrdiff_t label, ptrdiff_t n_classes) { return label >= 0 && label < n_classes; }

/* The bound of the loss, and of the gradient at the label, is 4 eps (1 + d), where d is how far the label's logit
 * leads. The bound of the other entries is 4 eps (1 + |z - m|). */
static inline void expect_index(const problem *p, ptrdiff_t i, const answer *a, long double upstream)
{
    if (!is_class(a->label, p->n_classes)) return;
    const long double eps = 4 * eps_of[p->d], z_y = a->z[a->label];
    const long double factor = eps * (1 + (z_y == a->max ? a->lead : 0));
    expected.loss[i] = a->log_sum + (a->max - z_y);
    expected.loss_error[i] = factor * expected.loss[i] + flushed(p, 1);
    long double others = 0;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        const long double g = upstream * a->e[k] / a->sum_exp;
        expected.out[i * p->n_classes + k] = g;
        expected.out_error[i * p->n_classes + k] = eps * (1 + below(a, k)) * fabsl(g) + flushed(p, upstream);
        others += k == a->label ? 0 : a->e[k];
    }
    const long double at_label = -upstream * others / a->sum_exp;
    expected.out[i * p->n_classes + a->label] = at_label;
    expected.out_error[i * p->n_classes + a->label] = factor * fabsl(at_label) + flushed(p, upstream);
}

/* All terms of the loss have one sign: its error is that of log S and the weights, and of two more sums. The gradient
 * is a difference: its error is in proportion to its two parts. At a single maximum these parts are what the other
 * classes have. */
static inline void expect_target(const problem *p, ptrdiff_t i, const answer *a, long double upstream)
{
    const long double eps = 4 * eps_of[p->d];
    long double loss = a->weight * a->log_sum, others = 0, others_weight = 0;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        if (a->t[k] != 0) loss += a->t[k] * (a->max - a->z[k]);
        if (a->z[k] < a->max) others += a->e[k], others_weight += a->t[k];
    }
    expected.loss[i] = loss;
    expected.loss_error[i] = eps * (1 + a->lead) * loss + flushed(p, a->weight);
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        const int one_max = a->z[k] == a->max && a->lead > 0;
        const long double plus = one_max ? others_weight : a->weight * a->e[k] / a->sum_exp;
        const long double minus = one_max ? a->weight * others / a->sum_exp : a->t[k];
        const long double depth = one_max ? a->lead : below(a, k);
        expected.out[i * p->n_classes + k] = upstream * (plus - minus);
        expected.out_error[i * p->n_classes + k] =
            eps * (1 + depth) * (plus + minus) * fabsl(upstream) + flushed(p, upstream * a->weight);
    }
}

static inline void expect_softmax(const problem *p, ptrdiff_t i, const answer *a, enum op op)
{
    const long double eps = 4 * eps_of[p->d];
    expected.loss[i] = a->max + a->log_sum;
    expected.loss_error[i] = eps * (1 + a->lead) * a->log_sum + eps_of[p->d] * fabsl(expected.loss[i]) + flushed(p, 1);
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        const int is_max = a->z[k] == a->max;
        const long double x = op == LOG_SOFTMAX ? a->z[k] - a->max - a->log_sum : a->e[k] / a->sum_exp;
        const long double factor = eps * (1 + (op == LOG_SOFTMAX ? (is_max ? a->lead : 0) : below(a, k)));
        expected.out[i * p->n_classes + k] = x;
        expected.out_error[i * p->n_classes + k] = factor * fabsl(x) + flushed(p, 1);
    }
}

/* H = log S + sum p depth: both are 0 or more. The term of a class is within 4 eps (1 + depth), as p is, and log S is
 * as in a loss. The gradient p_k (depth_k - mean) upstream is a difference: its error is in proportion to the size
 * p_k (depth_k + mean), and it has that of the mean. An exp that became 0 takes its depth with it, which is less than
 * `DEEPEST` then. */
static const long double DEEPEST = 800;

typedef struct {
    long double value, error;
} measured;

/* The mean of the depths: sum p depth. */
static inline measured mean_depth_of(enum dtype d, ptrdiff_t n_classes, const long double *e, const long double *depth,
                                     long double sum_exp)
{
    measured mean = {0, 0};
    for (ptrdiff_t k = 0; k < n_classes; ++k) {
        if (e[k] == 0 || isinf(depth[k])) continue;
        const long double term = e[k] / sum_exp * depth[k];
        mean.value += term, mean.error += 4 * eps_of[d] * (1 + depth[k]) * term;
    }
    return mean;
}

/* `log_sum` is log S. */
static inline void expect_entropy(const problem *p, ptrdiff_t i, const long double *e, const long double *depth,
                                  long double sum_exp, measured log_sum, long double weight, long double upstream)
{
    const long double eps = eps_of[p->d], tiny = DEEPEST * min_normal_of[p->d];
    const measured mean = mean_depth_of(p->d, p->n_classes, e, depth, sum_exp);
    expected.loss[i] = weight * (log_sum.value + mean.value);
    expected.loss_error[i] = weight * (log_sum.error + mean.error) + eps * expected.loss[i] + tiny * (1 + weight);
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        const long double own = isinf(depth[k]) ? 0 : depth[k], p_k = e[k] / sum_exp;
        const long double error = eps * (4 * (1 + own) + 1) * (own + mean.value) + mean.error;
        expected.out[i * p->n_classes + k] = upstream * p_k * (own - mean.value);
        expected.out_error[i * p->n_classes + k] =
            fabsl(upstream) * p_k * error + tiny * (1 + fabsl(upstream)) * (1 + mean.value);
    }
}

static inline void expect_plain_entropy(const problem *p, ptrdiff_t i, const answer *a, long double upstream)
{
    static long double depth[MAX_CLASSES];
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) depth[k] = a->max - a->z[k];
    const measured log_sum = {a->log_sum, 4 * eps_of[p->d] * (1 + a->lead) * a->log_sum};
    expect_entropy(p, i, a->e, depth, a->sum_exp, log_sum, 1, upstream);
}

/* The answer of a sample that is nan, or that is ignored. */
static inline void expect_the_same(const problem *p, ptrdiff_t i, long double loss, long double out)
{
    expected.loss[i] = loss, expected.loss_error[i] = 0;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k)
        expected.out[i * p->n_classes + k] = out, expected.out_error[i * p->n_classes + k] = 0;
}

/* ---- Ranks, which are exact ------------------------------------------------------------------------------------- */

/* Room for strides of up to 3, and for a canary at each end. */
enum { RANK_STRIDES = 3, RANK_ROOM = RANK_STRIDES * MAX_SAMPLES + 2, NO_RANK = 77 };

static struct {
    int64_t rank[MAX_SAMPLES], top[MAX_SAMPLES]; /* the parts as they must be */
    int64_t ranks[RANK_ROOM], tops[RANK_ROOM];   /* the parts as they are written */
} ranked;

/* Makes parts by their definition, over the `allowed` classes. NULL stands for all classes. */
static inline void expect_rank(ptrdiff_t i, const long double *z, const int *allowed, ptrdiff_t n_classes,
                               ptrdiff_t label)
{
    int64_t rank = 0, top = -1;
    if (!is_class(label, n_classes)) return;
    const int is_removed = allowed && !allowed[label];
    for (ptrdiff_t k = 0; k < n_classes; ++k) {
        if (allowed && !allowed[k]) continue;
        if (isnan(z[k])) {
            ranked.rank[i] = ranked.top[i] = -1;
            return;
        }
        rank += is_removed || z[k] > z[label] || (z[k] == z[label] && k < label);
        if (top < 0 || z[k] > z[top]) top = k;
    }
    ranked.rank[i] = top < 0 ? -1 : rank, ranked.top[i] = top;
}

/* The label of a target: the first of its largest entries. */
static inline ptrdiff_t first_largest(const problem *p, ptrdiff_t i)
{
    ptrdiff_t first = 0;
    for (ptrdiff_t k = 1; k < p->n_classes; ++k)
        if (entry(&p->target, i, k) > entry(&p->target, i, first)) first = k;
    return first;
}

static inline void give_ranks(softxent_block *b, ptrdiff_t stride)
{
    for (int i = 0; i < RANK_ROOM; ++i) ranked.ranks[i] = ranked.tops[i] = NO_RANK;
    b->rank = ranked.ranks + 1, b->top = ranked.tops + 1, b->rank_stride = stride, b->top_stride = RANK_STRIDES;
}

/* Checks that only the parts of the first `done` samples have been written. */
static inline void check_ranks(const softxent_block *b, ptrdiff_t done)
{
    int64_t ranks[RANK_ROOM], tops[RANK_ROOM];
    for (int i = 0; i < RANK_ROOM; ++i) ranks[i] = tops[i] = NO_RANK;
    for (ptrdiff_t i = 0; i < done; ++i)
        ranks[1 + i * b->rank_stride] = ranked.rank[i], tops[1 + i * b->top_stride] = ranked.top[i];
    CHECK(memcmp(ranks, ranked.ranks, sizeof ranks) == 0);
    CHECK(memcmp(tops, ranked.tops, sizeof tops) == 0);
}

/* One question: an operation with one choice of its inputs and outputs. */
typedef struct {
    const char *name;
    enum op op;
    int target, grad_output, accumulate, other_layout, in_place;
    int shards; /* the number of parts that the classes are in; 0: the classes are not divided */
} request;

static const long double HELD = 0.25L; /* the value of every element of an output that is accumulated into */

static inline void expect(const problem *p, const request *r)
{
    for (ptrdiff_t i = 0; i < p->n; ++i) {
        const answer *a = &answers[i];
        expect_rank(i, a->z, NULL, p->n_classes, r->target ? first_largest(p, i) : a->ignored ? 0 : a->label);
        if (!r->target && a->ignored) ranked.rank[i] = ranked.top[i] = -1;
        const int is_loss = has_loss_of(r->op);
        const long double upstream = upstream_of(p, i, r->grad_output);
        if (is_loss && !r->target && a->ignored)
            expect_the_same(p, i, 0, 0);
        else if (a->is_nan)
            expect_the_same(p, i, r->op == LOGSUMEXP && !a->has_nan ? a->max : NAN, NAN);
        else if (is_entropy(r->op))
            expect_plain_entropy(p, i, a, upstream);
        else if (!is_loss)
            expect_softmax(p, i, a, r->op);
        else if (r->target)
            expect_target(p, i, a, upstream);
        else
            expect_index(p, i, a, upstream);
    }
    for (ptrdiff_t j = 0; j < p->n * p->n_classes && r->accumulate; ++j)
        if (expected.out[j] != 0 || expected.out_error[j] != 0) {
            expected.out[j] += HELD;
            expected.out_error[j] += eps_of[p->d] * fabsl(expected.out[j]);
        } else
            expected.out[j] = HELD;
}

/* ---- Comparison ------------------------------------------------------------------------------------------------ */

/* Whether two values are equal, both nan, or as near as they must be. */
static inline int is_near(long double got, long double exact, long double error)
{
    return got == exact || (got != got && exact != exact) || (isfinite(exact) && fabsl(got - exact) <= error);
}

/* The value that an array can hold. A half is a float that is rounded once more, and rounding keeps the order. */
static inline int is_right(enum dtype d, long double got, long double exact, long double error)
{
    if (d == F32 || d == F64 || !isfinite(exact)) return is_near(got, exact, error);
    uint16_t bounds[2];
    set(d, bounds, 0, exact - error), set(d, bounds, 1, exact + error);
    return got >= get(d, bounds, 0) && got <= get(d, bounds, 1);
}

/* If long double is no wider than double, it cannot judge double. `d` is the type of the arithmetic. */
static inline void check_output_of(enum dtype d, const output *o, const long double *exact, const long double *error)
{
    const array *x = &o->x;
    const int is_judged = d != F64 || LDBL_MANT_DIG > DBL_MANT_DIG;
    for (ptrdiff_t i = 0; i < x->n && is_judged; ++i)
        for (ptrdiff_t k = 0; k < x->n_classes; ++k) {
            const ptrdiff_t j = i * x->n_classes + k;
            const long double got = entry(x, i, k);
            if (is_right(x->d, got, exact[j], error[j])) continue;
            char before[sizeof tally.about];
            memcpy(before, tally.about, sizeof before);
            ABOUT("%.110s: [%d, %d] is %.9Lg, not %.9Lg +- %.2Lg", before, (int)i, (int)k, got, exact[j], error[j]);
            CHECK(!"as exact as promised");
            memcpy(tally.about, before, sizeof before);
        }
    check_untouched(o, x->n);
}

static inline void check_output(const output *o, const long double *exact, const long double *error)
{
    check_output_of(o->x.d, o, exact, error);
}

/* Under an emulator only some of the problems are run. */
static inline int is_left_out(int problem)
{
#ifdef THINNED
    return problem % 11 != 0;
#else
    (void)problem;
    return 0;
#endif
}

/* ---- Calls ----------------------------------------------------------------------------------------------------- */

static inline softxent_block block_of(const problem *p, const softxent_isa *isa)
{
    softxent_block b;
    memset(&b, 0, sizeof b);
    b.size = sizeof b, b.isa = isa, b.n_samples = p->n, b.n_classes = p->n_classes, b.grad_scale = p->grad_scale;
    b.logits = p->logits.data, b.options = p->options;
    b.logits_sample_stride = p->logits.sample_stride, b.logits_class_stride = p->logits.class_stride;
    return b;
}

static inline void give_labels(softxent_block *b, const problem *p)
{
    b->labels = p->labels.data, b->labels_stride = p->labels.sample_stride, b->label_type = p->label_type;
}

static inline void give_target(softxent_block *b, const problem *p)
{
    b->target = p->target.data;
    b->target_sample_stride = p->target.sample_stride, b->target_class_stride = p->target.class_stride;
}

static inline void give_grad_output(softxent_block *b, const problem *p)
{
    b->grad_output = p->grad_output.data, b->grad_output_stride = p->grad_output.sample_stride;
}

static inline void give_loss(softxent_block *b, const array *x)
{
    b->loss = x->data, b->loss_stride = x->sample_stride;
}

static inline void give_out(softxent_block *b, const array *x)
{
    b->out = x->data, b->out_sample_stride = x->sample_stride, b->out_class_stride = x->class_stride;
}

static inline int call_of_parts(const char *which, enum dtype d, const softxent_block *b, ptrdiff_t *bad)
{
    switch (which[0]) {
    case 'b': return d == F32 ? softxent_begin_f32(b, bad) : softxent_begin_f64(b, bad);
    case 'm': return d == F32 ? softxent_merge_f32(b) : softxent_merge_f64(b);
    default: return d == F32 ? softxent_finish_f32(b, bad) : softxent_finish_f64(b, bad);
    }
}

/* The block that holds the classes of one shard. */
static inline softxent_block shard_of(const softxent_block *whole, enum dtype d, int shard, int n_shards)
{
    softxent_block b = *whole;
    const ptrdiff_t begin = whole->n_classes * shard / n_shards, end = whole->n_classes * (shard + 1) / n_shards;
    const ptrdiff_t size = (ptrdiff_t)size_of[d];
    b.first_class = begin, b.n_classes = end - begin, b.all_classes = whole->n_classes;
    b.logits = (const char *)b.logits + begin * b.logits_class_stride * (b.logits_type ? 2 : size);
    if (b.out) b.out = (char *)b.out + begin * b.out_class_stride * (b.out_type ? 2 : size);
    if (b.where) b.where += begin * b.where_class_stride;
    return b;
}

/* Computes loss and gradient from parts. The parts are merged in the order of the shards, and the first shard writes
 * the loss. */
static inline int call_in_shards(enum dtype d, const softxent_block *whole, int n_shards, ptrdiff_t *bad)
{
    static softxent_part_f64 parts[2][MAX_SAMPLES];
    int status = SOFTXENT_OK;
    if (n_shards > whole->n_classes) n_shards = (int)whole->n_classes;
    for (int shard = 0; shard < n_shards && status == SOFTXENT_OK; ++shard) {
        softxent_block b = shard_of(whole, d, shard, n_shards);
        b.parts = parts[shard > 0];
        status = call_of_parts("begin", d, &b, bad);
        b.parts = parts[0], b.other_parts = parts[1];
        if (shard > 0 && status == SOFTXENT_OK) status = call_of_parts("merge", d, &b, bad);
    }
    for (int shard = 0; shard < (whole->out ? n_shards : 1) && status == SOFTXENT_OK; ++shard) {
        softxent_block b = shard_of(whole, d, shard, n_shards);
        b.parts = parts[0];
        if (shard > 0) b.loss = NULL;
        status = call_of_parts("finish", d, &b, bad);
    }
    return status;
}

/* Every instruction set that this machine can run, and their number. */
enum { MAX_ISAS = 8 };
static const softxent_isa *isas[MAX_ISAS];
static int n_isas;

static inline void find_isas(void)
{
    for (n_isas = 0; n_isas < MAX_ISAS && softxent_isa_usable(n_isas); ++n_isas)
        CHECK(softxent_isa_select(softxent_isa_usable(n_isas), &isas[n_isas]) == SOFTXENT_OK);
}

/* Asks one instruction set, and compares its answer with `expected`. `l` is the layout of the outputs. */
static inline void check_request(const problem *p, const request *r, layout l, int at_end, const softxent_isa *isa)
{
    static _Alignas(double) unsigned char logits[ARENA_BYTES];
    const layout out_layout = r->other_layout ? layouts[(p->n + p->n_classes + 3) % N_LAYOUTS] : l;
    const array out_array =
        r->in_place ? p->logits : reals_of(arenas[OUT], at_end, out_layout, p->n, p->n_classes, p->d);
    softxent_block b = block_of(p, isa);
    output loss = output_of(reals_of(arenas[LOSS_OUT], at_end, l, p->n, 1, p->d), 77, arenas[LOSS_OUT], 0);
    output out = r->in_place ? snapshot(out_array, arenas[LOGITS], 1)
                             : output_of(out_array, r->accumulate ? HELD : 77, arenas[OUT], 1);
    const int has_loss = writes_loss(r->op);
    const int has_out = has_output(r->op);
    give_ranks(&b, 1 + p->n % 2);
    if (has_loss) give_loss(&b, &loss.x);
    if (has_out) give_out(&b, &out.x);
    if (r->target) give_target(&b, p);
    if (!r->target && has_loss_of(r->op)) give_labels(&b, p);
    if (r->grad_output) give_grad_output(&b, p);
    b.accumulate = r->accumulate, b.use_ignore_index = p->use_ignore_index, b.ignore_index = p->ignore_index;
    memcpy(logits, p->logits.base, p->logits.bytes);

    ptrdiff_t bad = -5;
    const int status = r->shards ? call_in_shards(p->d, &b, r->shards, &bad) : call(r->op, p->d, &b, &bad);
    CHECK(status == SOFTXENT_OK && bad == -5);
    if (has_loss) check_output(&loss, expected.loss, expected.loss_error);
    if (has_out) check_output(&out, expected.out, expected.out_error);
    check_ranks(&b, r->op == RANK ? p->n : 0);
    if (!has_loss) check_untouched(&loss, 0);
    if (!has_out) check_untouched(&out, 0);
    if (!r->in_place) CHECK(memcmp(logits, p->logits.base, p->logits.bytes) == 0);
    memcpy(p->logits.base, logits, p->logits.bytes);
}

static const request requests[] = {
    {"loss", LOSS, 0, 0, 0, 0, 0, 0},
    {"loss and rank", RANK, 0, 0, 0, 0, 0, 0},
    {"loss and gradient", LOSS_GRAD, 0, 0, 0, 0, 0, 0},
    {"gradient in another layout, times grad_output", LOSS_GRAD, 0, 1, 0, 1, 0, 0},
    {"gradient accumulated", LOSS_GRAD, 0, 0, 1, 0, 0, 0},
    {"gradient accumulated in another layout", LOSS_GRAD, 0, 1, 1, 1, 0, 0},
    {"gradient in place", LOSS_GRAD, 0, 0, 0, 0, 1, 0},
    {"loss of a target", LOSS, 1, 0, 0, 0, 0, 0},
    {"gradient of a target", LOSS_GRAD, 1, 0, 0, 0, 0, 0},
    {"gradient of a target in another layout, times grad_output", LOSS_GRAD, 1, 1, 0, 1, 0, 0},
    {"gradient of a target accumulated", LOSS_GRAD, 1, 0, 1, 0, 0, 0},
    {"gradient of a target in place", LOSS_GRAD, 1, 1, 0, 0, 1, 0},
    {"loss and rank of a target", RANK, 1, 0, 0, 0, 0, 0},
    {"loss in shards", LOSS, 0, 0, 0, 0, 0, 2},
    {"gradient in shards, times grad_output", LOSS_GRAD, 0, 1, 0, 0, 0, 3},
    {"gradient in shards in another layout, accumulated", LOSS_GRAD, 0, 0, 1, 1, 0, 7},
    {"gradient in shards in place", LOSS_GRAD, 0, 0, 0, 0, 1, 2},
    {"softmax", SOFTMAX, 0, 0, 0, 0, 0, 0},
    {"softmax in another layout", SOFTMAX, 0, 0, 0, 1, 0, 0},
    {"softmax in place", SOFTMAX, 0, 0, 0, 0, 1, 0},
    {"log_softmax", LOG_SOFTMAX, 0, 0, 0, 0, 0, 0},
    {"log_softmax in another layout", LOG_SOFTMAX, 0, 0, 0, 1, 0, 0},
    {"log_softmax in place", LOG_SOFTMAX, 0, 0, 0, 0, 1, 0},
    {"logsumexp", LOGSUMEXP, 0, 0, 0, 0, 0, 0},
    {"entropy", ENTROPY, 0, 0, 0, 0, 0, 0},
    {"entropy and gradient", ENTROPY_GRAD, 0, 0, 0, 0, 0, 0},
    {"entropy and gradient in another layout, times grad_output", ENTROPY_GRAD, 0, 1, 0, 1, 0, 0},
    {"entropy and gradient accumulated", ENTROPY_GRAD, 0, 0, 1, 0, 0, 0},
    {"entropy and gradient in place, times grad_output", ENTROPY_GRAD, 0, 1, 0, 0, 1, 0},
};

enum { N_REQUESTS = sizeof requests / sizeof requests[0] };

#define EACH_ISA                                                                                                       \
    for (const softxent_isa **isa = isas; isa < isas + n_isas && (tally.isa = softxent_isa_name(*isa)); ++isa)
#define EACH_DTYPE for (enum dtype d = F32; d <= F64; d = (enum dtype)(d + 1))

/* Asks every question about a problem. */
static inline void check_problem(problem *p, layout l, int at_end)
{
    solve(p);
    const int has_class_weight = p->options && p->options->class_weight;
    for (const request *r = requests; r < requests + N_REQUESTS; ++r) {
        if (r->shards && has_class_weight) continue; /* parts take no class weights */
        p->grad_scale = r->grad_output ? 0.37 : 1;
        expect(p, r);
        EACH_ISA
        {
            ABOUT("%s, %s, %s, %d samples, %d classes", r->name, dtype_name[p->d], l.name, (int)p->n,
                  (int)p->n_classes);
            check_request(p, r, l, at_end, *isa);
        }
    }
}

#endif
