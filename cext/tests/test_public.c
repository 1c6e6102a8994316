/* test_public.c - the public functions' manners: what they return for arguments that cannot be right, that they touch
 * nothing then, how the instruction set is chosen, and the checks of the labels. Numbers are in test_kernels.c. */
#include "problem.h"

enum { N = 4, N_CLASSES = 40 }; /* enough for the row kernel */

static problem sound_problem;
static output loss_output, out_output;

/* A block that is right for every function, and fresh outputs. */
static softxent_block sound_block(enum dtype d)
{
    sound_problem = problem_of(d, N, N_CLASSES, layouts[0], 1);
    const array loss = array_of(arenas[LOSS_OUT], 1, layouts[0], N, 1, size_of[d]);
    const array out = array_of(arenas[OUT], 1, layouts[0], N, N_CLASSES, size_of[d]);
    loss_output = output_of(loss, d, 77, arenas[LOSS_OUT], 0), out_output = output_of(out, d, 77, arenas[OUT], 1);
    softxent_block b = block_of(&sound_problem, NULL);
    give_labels(&b, &sound_problem), give_loss(&b, &loss), give_out(&b, &out);
    return b;
}

static void check_refused(enum op op, enum dtype d, const softxent_block *b, int status)
{
    ptrdiff_t bad = -5;
    CHECK(call(op, d, b, &bad) == status);
    CHECK(bad == -5);
    check_untouched(&loss_output, 0);
    check_untouched(&out_output, 0);
}

/* One thing wrong at a time: how many there are, and in `b` the i-th; 0 where it does not concern the operation. */
enum { N_WRONGS = 11 };

static int spoil(softxent_block *b, int wrong, enum op op)
{
    const int is_loss = op == LOSS || op == LOSS_GRAD;
    switch (wrong) {
    case 0: b->size = sizeof *b - 1; return 1;
    case 1: b->size = 0; return 1;
    case 2: b->n_samples = -1; return 1;
    case 3: b->n_classes = 0; return 1;
    case 4: b->n_classes = -3; return 1;
    case 5: b->logits = NULL; return 1;
    case 6: b->label_type = 8; return is_loss;
    case 7: b->label_type = -1; return is_loss;
    case 8: b->labels = NULL; return is_loss; /* and no target */
    case 9: b->loss = NULL; return is_loss || op == LOGSUMEXP;
    default: b->out = NULL; return op == SOFTMAX || op == LOG_SOFTMAX;
    }
}

static void bad_arguments(void)
{
    EACH_DTYPE
    for (int op = 0; op < N_OPS; ++op) {
        for (int wrong = 0; wrong < N_WRONGS; ++wrong) {
            softxent_block b = sound_block(d);
            ABOUT("%s %s, wrong %d", op_name[op], dtype_name[d], wrong);
            if (spoil(&b, wrong, (enum op)op)) check_refused((enum op)op, d, &b, SOFTXENT_BAD_ARGUMENT);
        }
        sound_block(d);
        ABOUT("%s %s, NULL", op_name[op], dtype_name[d]);
        check_refused((enum op)op, d, NULL, SOFTXENT_BAD_ARGUMENT);
    }
}

/* A block that has served the loss serves the softmax family: what it says of labels and gradients is not looked at. */
static void reused_block(void)
{
    EACH_DTYPE
    for (int op = SOFTMAX; op < N_OPS; ++op) {
        softxent_block b = sound_block(d);
        unsigned char clean[2][N * N_CLASSES * sizeof(double)] = {{0}},
                                               reused[2][N * N_CLASSES * sizeof(double)] = {{0}};
        b.out_sample_stride = N_CLASSES, b.out_class_stride = 1, b.loss_stride = 1;
        softxent_block plain = b;
        plain.labels = NULL, plain.target = NULL, plain.accumulate = 0, plain.grad_output = NULL;
        plain.out = clean[0], plain.loss = clean[1];
        CHECK(call((enum op)op, d, &plain, NULL) == SOFTXENT_OK);
        b.out = reused[0], b.loss = reused[1];
        b.accumulate = 1, b.grad_scale = 3, b.target = b.logits;
        b.target_sample_stride = b.logits_sample_stride, b.target_class_stride = b.logits_class_stride;
        ABOUT("%s %s", op_name[op], dtype_name[d]);
        CHECK(call((enum op)op, d, &b, NULL) == SOFTXENT_OK);
        CHECK(memcmp(clean, reused, 2 * sizeof clean[0]) == 0);
    }
}

/* An empty block needs no arrays. */
static void good_arguments(void)
{
    EACH_DTYPE
    for (int op = 0; op < N_OPS; ++op) {
        softxent_block b = sound_block(d);
        ABOUT("%s %s", op_name[op], dtype_name[d]);
        CHECK(call((enum op)op, d, &b, NULL) == SOFTXENT_OK);
        softxent_block empty;
        memset(&empty, 0, sizeof empty);
        empty.size = sizeof empty, empty.n_classes = 3;
        CHECK(call((enum op)op, d, &empty, NULL) == SOFTXENT_OK);
        b = sound_block(d);
        b.n_samples = 0;
        check_refused((enum op)op, d, &b, SOFTXENT_OK);
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
        b.logits = NULL; /* only the labels are read */
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
            if (wrong == 5 || !spoil(&spoiled, wrong, LOSS)) continue; /* 5: the logits */
            ABOUT("label type %d, wrong %d", type, wrong);
            CHECK(softxent_check_labels(&spoiled, &counted, NULL) == SOFTXENT_BAD_ARGUMENT && counted == -6);
        }
    }
    CHECK(softxent_check_labels(NULL, NULL, NULL) == SOFTXENT_BAD_ARGUMENT);
}

/* ---- The instruction set --------------------------------------------------------------------------------------- */

/* With no name given: which one, or the empty string for SOFTXENT_BAD_ISA. */
static const char *selected_by_environment(const char *value)
{
    const softxent_isa *isa = NULL;
#if POSIX
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
#if POSIX
    for (int i = 0; i < n_isas; ++i)
        CHECK(strcmp(selected_by_environment(softxent_isa_usable(i)), softxent_isa_usable(i)) == 0);
    CHECK(strcmp(selected_by_environment(""), softxent_isa_usable(0)) == 0);
    CHECK(strcmp(selected_by_environment("nonsense"), "") == 0);

    /* A block without an instruction set asks the environment too; one with does not. */
    softxent_block b = sound_block(F32);
    for (int op = 0; op < N_OPS; ++op) check_refused((enum op)op, F32, &b, SOFTXENT_BAD_ISA);
    b.isa = isas[0];
    CHECK(call(LOSS_GRAD, F32, &b, NULL) == SOFTXENT_OK);
    const softxent_isa *isa = NULL;
    CHECK(softxent_isa_select("scalar", &isa) == SOFTXENT_OK && strcmp(softxent_isa_name(isa), "scalar") == 0);
    CHECK(strcmp(selected_by_environment(NULL), softxent_isa_usable(0)) == 0);
#endif
}

static void status_in_words(void)
{
    for (int status = SOFTXENT_OK - 1; status <= SOFTXENT_BAD_ISA + 1; ++status) {
        ABOUT("status %d", status);
        CHECK(softxent_strerror(status) && *softxent_strerror(status));
        for (int other = SOFTXENT_OK; other < status && status <= SOFTXENT_BAD_ISA; ++other)
            CHECK(strcmp(softxent_strerror(status), softxent_strerror(other)) != 0);
    }
}

int main(void)
{
    make_arenas();
    find_isas();
    RUN_TEST(bad_arguments);
    RUN_TEST(good_arguments);
    RUN_TEST(reused_block);
    RUN_TEST(check_labels);
    RUN_TEST(isa_by_name);
    RUN_TEST(isa_by_environment);
    RUN_TEST(status_in_words);
    return report();
}
