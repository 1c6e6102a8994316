/* test_general.c - the general kernel against long double: options, targets, weights, removed classes, half precision
 * and second derivatives, each alone and in random combinations, over sizes around every vector and tile width and over
 * all layouts, within the bounds of docs/accuracy.md. Odd values are in test_edges.c. */
#include "general.h"

/* Numbers of classes below and above a tile of any number of lanes, around the widths of vectors, and some in between.
 */
#define AROUND(n) (n) - 1, (n), (n) + 1
static const ptrdiff_t class_counts[] = {
    1,
    2,
    3,
    5,
    AROUND(8),
    AROUND(16),
    AROUND(32),
    40,
    AROUND(TILE),
    100,
    AROUND(2 * TILE),
    AROUND(4 * TILE),
    300,
    600,
    AROUND(8 * TILE),
    AROUND(MOST_LANES * TILE),
    MAX_CLASSES,
};
static const ptrdiff_t sample_counts[] = {1, 2, 9, 17, 33};

enum { N_CLASS_COUNTS = sizeof class_counts / sizeof class_counts[0] };
enum { N_SAMPLE_COUNTS = sizeof sample_counts / sizeof sample_counts[0] };

static int is_judged(enum dtype d)
{
    const int is_wider = LDBL_MANT_DIG > DBL_MANT_DIG || d == F32;
    if (!is_wider) puts("f64: skipped, there is no wider type here");
    return is_wider;
}

/* One question of so many is asked, because there are many problems, and the large ones are slow. */
static int one_question_of(ptrdiff_t n_classes)
{
    return n_classes > 900 ? 29 : n_classes > 100 ? 7 : n_classes > 33 ? 2 : 1;
}

static void check_combinations(enum dtype d)
{
    int problem_number = 0;
    if (!is_judged(d)) return;
    for (int c = 0; c < N_CLASS_COUNTS; ++c)
        for (int s = 0; s < N_SAMPLE_COUNTS; ++s)
            for (int l = 0; l < N_LAYOUTS; ++l) {
                const int at_end = ++problem_number % 2;
                if (is_left_out(problem_number / 2)) continue;
                general g = general_of(d, draw_features(), sample_counts[s], class_counts[c], layouts[l], at_end);
                check_general_problem(&g, layouts[l], at_end, one_question_of(class_counts[c]));
            }
}

static void combinations_f32(void) { check_combinations(F32); }
static void combinations_f64(void) { check_combinations(F64); }

/* Each problem has one feature alone, so that nothing hides behind the errors of another feature. */
static void each_alone(void)
{
    static const ptrdiff_t some_classes[] = {2, 33, 100, 300};
    EACH_DTYPE
    for (int feature = 1; feature < ALL_FEATURES && is_judged(d); feature *= 2)
        for (int c = 0; c < 4; ++c)
            for (int l = 0; l < N_LAYOUTS; ++l) {
                if (is_left_out(feature + c + l)) continue;
                general g = general_of(d, feature, 9, some_classes[c], layouts[l], l % 2);
                check_general_problem(&g, layouts[l], l % 2, 1);
            }
}

/* Options without effect send a plain call through the general kernel; so do weights of 1. The promises for index
 * labels and for the softmax family hold there too. */
static void plain_promises(void)
{
    static const ptrdiff_t some_classes[] = {1, 8, 31, 33, 4 * TILE + 1, MOST_LANES * TILE + 1};
    softxent_options nothing;
    memset(&nothing, 0, sizeof nothing);
    nothing.size = sizeof nothing;
    EACH_DTYPE
    for (int c = 0; c < 6 && is_judged(d); ++c)
        for (int l = 0; l < N_LAYOUTS; ++l) {
            if (is_left_out(c + l)) continue;
            problem p = problem_of(d, 17, some_classes[c], layouts[l], l % 2);
            const array ones = reals_of(arenas[CLASS_WEIGHT], l % 2, layouts[0], 1, p.n_classes, d);
            for (ptrdiff_t k = 0; k < p.n_classes; ++k) put(&ones, 0, k, 1);
            nothing.class_weight = one_in(2) ? ones.data : NULL;
            p.options = &nothing;
            check_problem(&p, layouts[l], l % 2);
        }
}

/* Strides of 0: all samples share one sample's input, or all classes share one class's. */
static void zero_strides(void)
{
    EACH_DTYPE
    for (ptrdiff_t n_classes = 5; n_classes <= 50; n_classes += 45)
        for (int which = 0; which < 8 && is_judged(d); ++which) {
            general g = general_of(d, draw_features() | HAS_WHERE, 17, n_classes, layouts[0], 1);
            array *arrays[] = {&g.p.logits, &g.p.target, &g.direction, &g.where};
            if (which < 4) arrays[which]->sample_stride = 0;
            if (which == 2) g.classes.sample_stride = g.masses.sample_stride = 0, densify(&g);
            if (which == 3) g.temperatures.sample_stride = 0;
            if (which >= 4) arrays[which - 4]->class_stride = 0;
            if (which == 0) g.sample_weight.sample_stride = 0;
            if (which == 1) g.p.labels.sample_stride = g.p.grad_output.sample_stride = 0;
            for (const question *q = questions; q < questions + N_QUESTIONS; ++q) {
                if (!q->in_place) ask(&g, q, layouts[0], 1);
            }
        }
}

/* Halves: more classes than a tile holds, and rows in all layouts. */
static void jacobians(void)
{
    static const ptrdiff_t some_classes[] = {1, 4, 17, 33, TILE, TILE + 6, 140, 300};
    static const question jacobian = {.op = JACOBIAN};
    EACH_DTYPE
    for (int c = 0; c < 8 && is_judged(d); ++c)
        for (int l = 0; l < (some_classes[c] > 100 ? 2 : N_LAYOUTS); ++l) {
            if (is_left_out(c + l)) continue;
            const ptrdiff_t n = some_classes[c] > 100 ? 1 : 5;
            general g = general_of(d, draw_features(), n, some_classes[c], layouts[l], l % 2);
            ask(&g, &jacobian, layouts[l], l % 2);
        }
}

/* Temperatures and softcaps as far from 1 as they may be, with logits of their size. The upstream gradient makes up for
 * the factor 1 / T of the gradient. */
static void extreme_scales(void)
{
    EACH_DTYPE
    for (int which = 0; which < 6 && is_judged(d); ++which)
        for (ptrdiff_t n_classes = 5; n_classes <= 50; n_classes += 45) {
            const double scale = which % 2 ? 0x1p100 : 0x1p-100;
            general g = general_of(d, HAS_TARGET | HAS_CLASS_WEIGHT, 17, n_classes, layouts[0], 1);
            if (which < 4) g.o.temperature = g.p.grad_scale = scale;
            if (which >= 2) g.o.softcap = scale;
            for (ptrdiff_t i = 0; i < g.p.n; ++i)
                for (ptrdiff_t k = 0; k < n_classes; ++k)
                    put(&g.p.logits, i, k, scale * random_between(-2, which >= 2 ? 2 : 10));
            check_general_problem(&g, layouts[0], 1, 1);
        }
}

/* Teachers that agree with their student: within 1e-6 or 1e-3, exactly, but for a constant, or where the student is
 * confident. Targets that are the student's own probabilities, but for a small change. All are precise relative to the
 * divergence, which is much smaller than the terms of a formula that subtracts logarithms. */
static void agreement(void)
{
    static const ptrdiff_t some_classes[] = {2, 17, TILE + 1, 300, MOST_LANES * TILE + 1};
    static const double apart[] = {1e-6, 1e-3, 0, 0.1, 0.7, 2};
    EACH_DTYPE
    for (int c = 0; c < 5; ++c)
        for (int kind = 0; kind < 12 && is_judged(d); ++kind)
            for (int l = 0; l < N_LAYOUTS; ++l) {
                if (is_left_out(c + l) || (c > 2 && l > 1)) continue;
                const int features = draw_features() & ~HAS_HALVES;
                general g = general_of(d, features, 5, some_classes[c], layouts[l], l % 2);
                for (ptrdiff_t i = 0; i < g.p.n; ++i) {
                    long double sum = 0, temperature = g.o.temperature == 0 ? 1 : g.o.temperature;
                    const double shift = kind < 6 ? 0 : kind % 3 ? 1 : 300;
                    for (ptrdiff_t k = 0; k < g.p.n_classes; ++k) {
                        const long double z = random_between(-4, 4) + (i == 0 && k == 1 ? 20 : 0);
                        put(&g.p.logits, i, k, z);
                        put(&g.direction, i, k,
                            entry(&g.p.logits, i, k) + shift + apart[kind % 6] * random_between(-1, 1));
                        if (is_allowed(&g, i, k)) sum += wide_exp(entry(&g.p.logits, i, k) / temperature);
                    }
                    for (ptrdiff_t k = 0; k < g.p.n_classes; ++k) {
                        const long double p = wide_exp(entry(&g.p.logits, i, k) / temperature) / sum;
                        put(&g.p.target, i, k,
                            is_allowed(&g, i, k) ? p * (1 + apart[kind % 6] * random_between(0, 1)) : 0);
                    }
                }
                check_divergences(&g, layouts[l], l % 2);
            }
}

/* A thousand equal terms. If they were summed in order and without compensation, each sum would be off by many eps. */
static void long_sums(void)
{
    EACH_DTYPE
    for (int l = 0; l < 2 && is_judged(d); ++l)
        for (int features = 0; features < 4; ++features) {
            general g = general_of(d, (features & 1 ? HAS_TARGET : 0) | (features & 2 ? HAS_SMOOTHING : 0), 17,
                                   MOST_LANES * TILE + 1, layouts[l], 1);
            for (ptrdiff_t i = 0; i < g.p.n; ++i)
                for (ptrdiff_t k = 0; k < g.p.n_classes; ++k) {
                    put(&g.p.logits, i, k, k == i ? 7 : -0.1L * (long double)i);
                    put(&g.p.target, i, k, 1 / (1000 + (long double)i)), put(&g.direction, i, k, k == i ? 0.1L : 0.7L);
                }
            check_general_problem(&g, layouts[l], 1, 1);
        }
}

/* An operation of which nothing is asked would pass whatever it does. */
static void every_operation_is_asked_about(void)
{
    EACH_OP
    {
        int n_asked = 0;
        for (int i = 0; i < N_QUESTIONS; ++i) n_asked += questions[i].op == (enum op)op;
        ABOUT("%s", op_name((enum op)op));
        CHECK(n_asked > 0);
    }
}

int main(void)
{
    make_arenas();
    find_isas();
    RUN_TEST(every_operation_is_asked_about);
    RUN_TEST(combinations_f32);
    RUN_TEST(combinations_f64);
    RUN_TEST(each_alone);
    RUN_TEST(plain_promises);
    RUN_TEST(zero_strides);
    RUN_TEST(jacobians);
    RUN_TEST(extreme_scales);
    RUN_TEST(agreement);
    RUN_TEST(long_sums);
    return report();
}
