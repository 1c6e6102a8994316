/* test_kernels.c - the public functions against long double: every operation, dtype and usable instruction set, over
 * sizes around every vector width and over all layouts, within the bounds of docs/accuracy.md. The outputs are
 * surrounded by canaries, and all arrays lie against pages that may not be touched. Odd values and arguments are in
 * test_edges.c and test_public.c. */
#include "problem.h"

static const ptrdiff_t class_counts[] = {1,  2,  3,  7,        8,    9,        15,  16,   17,
                                         31, 32, 33, TILE - 1, TILE, TILE + 1, 100, 1000, 1001};
static const ptrdiff_t sample_counts[] = {1, 2, 15, 16, 17, 33};

enum { N_CLASS_COUNTS = sizeof class_counts / sizeof class_counts[0] };
enum { N_SAMPLE_COUNTS = sizeof sample_counts / sizeof sample_counts[0] };

static void check_sizes(enum dtype d)
{
    if (LDBL_MANT_DIG == DBL_MANT_DIG && d == F64) {
        puts("f64: skipped, there is no wider type here");
        return;
    }
    int problem_number = 0;
    for (int c = 0; c < N_CLASS_COUNTS; ++c)
        for (int s = 0; s < N_SAMPLE_COUNTS; ++s)
            for (int l = 0; l < N_LAYOUTS; ++l) {
                const int at_end = ++problem_number % 2; /* there are 7 layouts: each gets both */
                if (is_left_out(problem_number / 2)) continue;
                problem p = problem_of(d, sample_counts[s], class_counts[c], layouts[l], at_end);
                check_problem(&p, layouts[l], at_end);
            }
}

static void sizes_and_layouts_f32(void) { check_sizes(F32); }
static void sizes_and_layouts_f64(void) { check_sizes(F64); }

/* Labels of each type. The problems of the other tests draw their label types at random. */
static void label_types(void)
{
    static const request loss_grad = {"loss and gradient", LOSS_GRAD, 0, 0, 0, 0, 0, 0};
    EACH_DTYPE
    for (int type = SOFTXENT_INT8; type <= SOFTXENT_UINT64; ++type)
        for (ptrdiff_t n_classes = 10; n_classes <= 100; n_classes += 90) {
            problem p = problem_of(d, 17, n_classes, layouts[0], 1);
            p.label_type = type;
            p.labels = array_of(arenas[LABELS], 1, layouts[6], p.n, 1, label_size[type]);
            for (ptrdiff_t i = 0; i < p.n; ++i) set_label(&p, i, i % 3 ? n_classes - 1 - i % 10 : 0);
            solve(&p);
            expect(&p, &loss_grad);
            EACH_ISA
            {
                ABOUT("label type %d, %s, %d classes", type, dtype_name[d], (int)n_classes);
                check_request(&p, &loss_grad, layouts[0], 1, *isa);
            }
        }
}

/* All samples share one row of logits, or all classes share one logit: inputs may have strides of 0. */
static void zero_strides(void)
{
    EACH_DTYPE
    for (ptrdiff_t n_classes = 5; n_classes <= 50; n_classes += 45)
        for (int which = 0; which < 4; ++which) {
            problem p = problem_of(d, 17, n_classes, layouts[0], 1);
            if (which == 0) p.logits.sample_stride = 0;
            if (which == 1) p.logits.class_stride = 0;
            if (which == 2) p.target.sample_stride = p.labels.sample_stride = 0;
            if (which == 3) p.target.class_stride = p.grad_output.sample_stride = 0;
            solve(&p);
            for (const request *r = requests; r < requests + N_REQUESTS; ++r) {
                if (r->in_place) continue;
                expect(&p, r);
                EACH_ISA
                {
                    ABOUT("%s, %s, %d classes, stride %d is 0", r->name, dtype_name[d], (int)n_classes, which);
                    check_request(&p, r, layouts[0], 1, *isa);
                }
            }
        }
}

int main(void)
{
    make_arenas();
    find_isas();
    RUN_TEST(sizes_and_layouts_f32);
    RUN_TEST(sizes_and_layouts_f64);
    RUN_TEST(label_types);
    RUN_TEST(zero_strides);
    return report();
}
