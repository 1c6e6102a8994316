/* problem.h - a softmax problem of any size, dtype and layout in guarded memory, its answer in long double, and the
 * bounds that DESIGN.md sets on the distance between the two. What is asked of the library is in the tests. */
#ifndef SOFTXENT_TESTS_PROBLEM_H
#define SOFTXENT_TESTS_PROBLEM_H

#include "arena.h"

#include <float.h>
#include <math.h>

#include "check.h"
#include "softxent.h"

/* ---- Both dtypes through one door ------------------------------------------------------------------------------ */

enum dtype { F32, F64 };

static const char *const dtype_name[] = {"f32", "f64"};
static const size_t size_of[] = {sizeof(float), sizeof(double)};
static const long double eps_of[] = {0x1p-23L, 0x1p-52L}, min_normal_of[] = {FLT_MIN, DBL_MIN};

static inline long double get(enum dtype d, const void *p, ptrdiff_t i)
{
    return d == F32 ? ((const float *)p)[i] : ((const double *)p)[i];
}

static inline void set(enum dtype d, void *p, ptrdiff_t i, long double x)
{
    if (d == F32)
        ((float *)p)[i] = (float)x;
    else
        ((double *)p)[i] = (double)x;
}

enum op { LOSS, LOSS_GRAD, SOFTMAX, LOG_SOFTMAX, LOGSUMEXP, N_OPS };

static const char *const op_name[] = {"loss", "loss_grad", "softmax", "log_softmax", "logsumexp"};

static inline int call(enum op op, enum dtype d, const softxent_block *b, ptrdiff_t *bad)
{
    switch (op) {
    case SOFTMAX: return d == F32 ? softxent_softmax_f32(b) : softxent_softmax_f64(b);
    case LOG_SOFTMAX: return d == F32 ? softxent_log_softmax_f32(b) : softxent_log_softmax_f64(b);
    case LOGSUMEXP: return d == F32 ? softxent_logsumexp_f32(b) : softxent_logsumexp_f64(b);
    default: return d == F32 ? softxent_cross_entropy_f32(b, bad) : softxent_cross_entropy_f64(b, bad);
    }
}

/* ---- Layouts --------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    int channels_first, pad, step, flip; /* flip: 1 the classes run backwards in memory, 2 the samples */
} layout;

static const layout layouts[] = {
    {"rows", 0, 0, 1, 0},          {"channels first", 1, 0, 1, 0},        {"padded rows", 0, 5, 1, 0},
    {"backward classes", 0, 0, 1, 1}, {"backward samples", 0, 3, 1, 2}, {"padded channels first", 1, 3, 1, 0},
    {"every third", 0, 0, 3, 0},
};

enum { N_LAYOUTS = sizeof layouts / sizeof layouts[0] };

/* A strided array of n samples of n_classes: `data` points to class 0 of sample 0, wherever in the array that is. */
typedef struct {
    unsigned char *base, *data;
    size_t bytes;
    ptrdiff_t n, n_classes, sample_stride, class_stride;
    size_t size;
} array;

static inline array array_of(arena a, int at_end, layout l, ptrdiff_t n, ptrdiff_t n_classes, size_t size)
{
    array x = {NULL, NULL, 0, n, n_classes, 0, 0, size};
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

/* ---- The memory of one problem --------------------------------------------------------------------------------- */

enum { MAX_SAMPLES = 33, MAX_CLASSES = 1001, MAX_ENTRIES = MAX_SAMPLES * MAX_CLASSES };

/* Room for "every third" of the largest problem, and for the canaries before and behind an output. */
enum { MARGIN = 256, ARENA_BYTES = (3 * MAX_SAMPLES * (MAX_CLASSES + 8)) * (int)sizeof(double) + MARGIN };

enum { LOGITS, TARGET, LABELS, GRAD_OUTPUT, LOSS_OUT, OUT, N_ARENAS };

static arena arenas[N_ARENAS];

static inline void make_arenas(void)
{
    for (int i = 0; i < N_ARENAS; ++i) arenas[i] = arena_of(ARENA_BYTES);
}

/* An output with its surroundings, as they were before a call. */
typedef struct {
    array x;
    unsigned char *copy, *from;
    size_t bytes;
} output;

static unsigned char output_copies[2][ARENA_BYTES + 2 * MARGIN];

/* What a call finds in an output: `value`, and canaries all around. */
static inline output output_of(array x, int which, enum dtype d, long double value)
{
    output o = {x, output_copies[which], x.base, x.bytes};
    const arena a = arenas[which ? OUT : LOSS_OUT];
    if (o.from >= a.start + MARGIN) o.from -= MARGIN, o.bytes += MARGIN;
    if (x.base + x.bytes + MARGIN <= a.end) o.bytes += MARGIN;
    memset(o.from, CANARY, o.bytes);
    for (ptrdiff_t i = 0; i < x.n; ++i)
        for (ptrdiff_t k = 0; k < x.n_classes; ++k) set(d, x.data, index_in(&x, i, k), value);
    memcpy(o.copy, o.from, o.bytes);
    return o;
}

/* Nothing but the samples before `done` has been written. */
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
} problem;

/* Of one sample: the logits as they were stored, e = exp(z - m), and all that follows from them. */
typedef struct {
    long double z[MAX_CLASSES], e[MAX_CLASSES], t[MAX_CLASSES];
    long double max, sum_exp, log_sum, lead, weight;
    ptrdiff_t label;
} answer;

/* Logits of many kinds: what a net gives at first and at last, far from 0, all alike, with ties, and far apart. */
static inline void draw_logits(problem *p, ptrdiff_t i)
{
    const unsigned kind = (unsigned)(random_bits() % 8);
    const double offset = kind == 2 ? 1e4 : kind == 3 ? -1e8 : kind == 4 ? -63.9 : kind == 7 ? 150 : 0;
    const double spread = kind == 1 ? 60 : kind == 3 ? 40 : 4;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        double z = kind == 5 ? 1.5 : offset + random_between(-spread, spread);
        if (kind == 6) z = floor(z);
        set(p->d, p->logits.data, index_in(&p->logits, i, k), z);
    }
    if (kind == 0 || kind == 4) { /* a confident one */
        const ptrdiff_t k = (ptrdiff_t)(random_bits() % (uint64_t)p->n_classes);
        set(p->d, p->logits.data, index_in(&p->logits, i, k), offset + random_between(5, 40));
    }
}

static inline ptrdiff_t get_label(const problem *p, ptrdiff_t i)
{
    const ptrdiff_t at = i * p->labels.sample_stride;
    switch (p->label_type) {
    case SOFTXENT_INT8: return ((const int8_t *)p->labels.data)[at];
    case SOFTXENT_INT16: return ((const int16_t *)p->labels.data)[at];
    case SOFTXENT_INT32: return ((const int32_t *)p->labels.data)[at];
    case SOFTXENT_INT64: return (ptrdiff_t)((const int64_t *)p->labels.data)[at];
    case SOFTXENT_UINT8: return ((const uint8_t *)p->labels.data)[at];
    case SOFTXENT_UINT16: return ((const uint16_t *)p->labels.data)[at];
    case SOFTXENT_UINT32: return (ptrdiff_t)((const uint32_t *)p->labels.data)[at];
    default: return (ptrdiff_t)((const uint64_t *)p->labels.data)[at];
    }
}

static inline void set_label(problem *p, ptrdiff_t i, int64_t y)
{
    const ptrdiff_t at = i * p->labels.sample_stride;
    switch (p->label_type) {
    case SOFTXENT_INT8: ((int8_t *)p->labels.data)[at] = (int8_t)y; break;
    case SOFTXENT_INT16: ((int16_t *)p->labels.data)[at] = (int16_t)y; break;
    case SOFTXENT_INT32: ((int32_t *)p->labels.data)[at] = (int32_t)y; break;
    case SOFTXENT_INT64: ((int64_t *)p->labels.data)[at] = y; break;
    case SOFTXENT_UINT8: ((uint8_t *)p->labels.data)[at] = (uint8_t)y; break;
    case SOFTXENT_UINT16: ((uint16_t *)p->labels.data)[at] = (uint16_t)y; break;
    case SOFTXENT_UINT32: ((uint32_t *)p->labels.data)[at] = (uint32_t)y; break;
    default: ((uint64_t *)p->labels.data)[at] = (uint64_t)y; break;
    }
}

static const size_t label_size[] = {1, 2, 4, 8, 1, 2, 4, 8};
static const int64_t label_max[] = {INT8_MAX,  INT16_MAX,  INT32_MAX,  INT64_MAX,
                                    UINT8_MAX, UINT16_MAX, UINT32_MAX, INT64_MAX};

/* A third of the target's entries are 0, and its sum is what it is: 1 is not assumed. */
static inline void draw_target(problem *p, ptrdiff_t i)
{
    const long double scale = 1 + random_between(0, 1) / (double)p->n_classes;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k)
        set(p->d, p->target.data, index_in(&p->target, i, k),
            random_bits() % 3 ? scale * random_between(0, 2) / (double)p->n_classes : 0);
}

static inline problem problem_of(enum dtype d, ptrdiff_t n, ptrdiff_t n_classes, layout l, int at_end)
{
    const layout targets = layouts[(&l - &l + n + n_classes) % N_LAYOUTS];
    problem p;
    p.d = d, p.n = n, p.n_classes = n_classes, p.grad_scale = 1;
    p.label_type = (int)(random_bits() % 8);
    if (label_max[p.label_type] < n_classes) p.label_type |= SOFTXENT_INT16;
    p.logits = array_of(arenas[LOGITS], at_end, l, n, n_classes, size_of[d]);
    p.target = array_of(arenas[TARGET], at_end, targets, n, n_classes, size_of[d]);
    p.labels = array_of(arenas[LABELS], at_end, l, n, 1, label_size[p.label_type]);
    p.grad_output = array_of(arenas[GRAD_OUTPUT], at_end, l, n, 1, size_of[d]);
    for (ptrdiff_t i = 0; i < n; ++i) {
        const int64_t classes = n_classes <= label_max[p.label_type] ? n_classes : label_max[p.label_type];
        draw_logits(&p, i), draw_target(&p, i);
        set_label(&p, i, (int64_t)(random_bits() % (uint64_t)classes));
        set(d, p.grad_output.data, i * p.grad_output.sample_stride, random_between(-2, 2));
    }
    return p;
}

static inline answer answer_of(const problem *p, ptrdiff_t i)
{
    static answer a;
    long double rest = 0;
    ptrdiff_t top = 0;
    a.max = -INFINITY, a.label = get_label(p, i), a.weight = 0, a.lead = INFINITY;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        a.z[k] = get(p->d, p->logits.data, index_in(&p->logits, i, k));
        a.t[k] = get(p->d, p->target.data, index_in(&p->target, i, k));
        a.weight += a.t[k];
        if (a.z[k] > a.max) a.max = a.z[k], top = k;
    }
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        a.e[k] = expl(a.z[k] - a.max);
        if (k == top) continue;
        rest += a.e[k];
        if (a.max - a.z[k] < a.lead) a.lead = a.max - a.z[k];
    }
    if (p->n_classes == 1) a.lead = 0;
    a.sum_exp = 1 + rest, a.log_sum = log1pl(rest);
    return a;
}

/* ---- Expectations ---------------------------------------------------------------------------------------------- */

/* What each output should be, and how far from it is still right. */
typedef struct {
    long double loss[MAX_SAMPLES], loss_error[MAX_SAMPLES];
    long double out[MAX_ENTRIES], out_error[MAX_ENTRIES];
} expectation;

static expectation expected;

/* Below the smallest normal number an exp may have become 0, before it was scaled by the upstream gradient. */
static inline long double flushed(const problem *p, long double scale)
{
    return min_normal_of[p->d] * (1 + fabsl(scale));
}

/* The upstream gradient, rounded to the dtype as it is used. */
static inline long double upstream_of(const problem *p, ptrdiff_t i, int with_grad_output)
{
    const long double g = with_grad_output ? get(p->d, p->grad_output.data, i * p->grad_output.sample_stride) : 1;
    const double product = p->grad_scale * (double)g;
    return p->d == F32 ? (float)product : product;
}

/* DESIGN.md, 2: the loss within 4 eps (1 + d), the gradient at the label too, where d is by how much the label's
 * logit leads; the other entries within 4 eps (1 + |z - m|). */
static inline void expect_index(const problem *p, ptrdiff_t i, const answer *a, long double upstream)
{
    const long double eps = 4 * eps_of[p->d], z_y = a->z[a->label];
    const long double factor = eps * (1 + (z_y == a->max ? a->lead : 0));
    expected.loss[i] = a->log_sum + (a->max - z_y);
    expected.loss_error[i] = factor * expected.loss[i] + flushed(p, 1);
    long double others = 0;
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        const long double g = upstream * a->e[k] / a->sum_exp;
        expected.out[i * p->n_classes + k] = g;
        expected.out_error[i * p->n_classes + k] =
            eps * (1 + a->max - a->z[k]) * fabsl(g) + flushed(p, upstream);
        others += k == a->label ? 0 : a->e[k];
    }
    const long double at_label = -upstream * others / a->sum_exp;
    expected.out[i * p->n_classes + a->label] = at_label;
    expected.out_error[i * p->n_classes + a->label] = factor * fabsl(at_label) + flushed(p, upstream);
}

/* All terms of the loss have one sign: it is as good as log S and the weights, two sums more. The gradient is a
 * difference, and as good as its two parts; at the one maximum these are what the other classes have. */
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
        const long double below = one_max ? a->lead : a->max - a->z[k];
        expected.out[i * p->n_classes + k] = upstream * (plus - minus);
        expected.out_error[i * p->n_classes + k] =
            eps * (1 + below) * (plus + minus) * fabsl(upstream) + flushed(p, upstream * a->weight);
    }
}

static inline void expect_softmax(const problem *p, ptrdiff_t i, const answer *a, enum op op)
{
    const long double eps = 4 * eps_of[p->d];
    expected.loss[i] = a->max + a->log_sum;
    expected.loss_error[i] = eps * (1 + a->lead) * a->log_sum + eps_of[p->d] * fabsl(expected.loss[i]) + flushed(p, 1);
    for (ptrdiff_t k = 0; k < p->n_classes; ++k) {
        const long double below = a->max - a->z[k], probability = a->e[k] / a->sum_exp;
        const long double log_p = -below - a->log_sum;
        const long double factor = eps * (1 + (op == LOG_SOFTMAX ? (below == 0 ? a->lead : 0) : below));
        const long double x = op == LOG_SOFTMAX ? log_p : probability;
        expected.out[i * p->n_classes + k] = x;
        expected.out_error[i * p->n_classes + k] = factor * fabsl(x) + flushed(p, 1);
    }
}

/* ---- Comparison ------------------------------------------------------------------------------------------------ */

/* Equal, both nan, or as near as it must be. */
static inline int is_near(long double got, long double exact, long double error)
{
    return got == exact || (got != got && exact != exact) || fabsl(got - exact) <= error;
}

static inline void check_output(const output *o, enum dtype d, const long double *exact, const long double *error)
{
    const array *x = &o->x;
    for (ptrdiff_t i = 0; i < x->n; ++i)
        for (ptrdiff_t k = 0; k < x->n_classes; ++k) {
            const ptrdiff_t j = i * x->n_classes + k;
            const long double got = get(d, x->data, index_in(x, i, k));
            if (is_near(got, exact[j], error[j])) continue;
            char before[sizeof tally.about];
            memcpy(before, tally.about, sizeof before);
            ABOUT("%.110s: [%d, %d] is %.9Lg, not %.9Lg +- %.2Lg", before, (int)i, (int)k, got, exact[j], error[j]);
            CHECK(!"as exact as promised");
            memcpy(tally.about, before, sizeof before);
        }
    check_untouched(o, x->n);
}

/* ---- Calls ----------------------------------------------------------------------------------------------------- */

static inline softxent_block block_of(const problem *p, const softxent_isa *isa)
{
    softxent_block b;
    memset(&b, 0, sizeof b);
    b.size = sizeof b, b.isa = isa, b.n_samples = p->n, b.n_classes = p->n_classes, b.grad_scale = p->grad_scale;
    b.logits = p->logits.data;
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

/* Every instruction set that this machine can run, and how many there are. */
enum { MAX_ISAS = 8 };
static const softxent_isa *isas[MAX_ISAS];
static int n_isas;

static inline void find_isas(void)
{
    for (n_isas = 0; n_isas < MAX_ISAS && softxent_isa_usable(n_isas); ++n_isas)
        CHECK(softxent_isa_select(softxent_isa_usable(n_isas), &isas[n_isas]) == SOFTXENT_OK);
}

#define EACH_ISA \
    for (const softxent_isa **isa = isas; isa < isas + n_isas && (tally.isa = softxent_isa_name(*isa)); ++isa)
#define EACH_DTYPE for (enum dtype d = F32; d <= F64; d = (enum dtype)(d + 1))

#endif
