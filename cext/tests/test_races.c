/* test_races.c - labels that another thread changes during the call, at the worst moment: before every single access;
 * and so the classes and masses of a sparse target, and the temperatures of samples.
 *
 * Between two accesses nobody can see what labels hold. So this is as bad as a change after every instruction, and it
 * needs no luck. The pages of the labels are closed, so that an access faults. The handler gives three labels new
 * values, a class or none. Then it opens the pages and sets the processor's trap flag. After this one instruction, the
 * second handler closes the pages again.
 *
 * Whatever the labels do, a call succeeds or names one of the three samples. The samples before it are done. Its sample
 * and all later ones are unchanged, but for sparse targets, where they may hold anything. Temperatures that change
 * after they were checked may spoil the results of their samples, and nothing else. This test is for x86-64 and Linux
 * alone. An emulator (THINNED is defined) has no such flag. */
#include "arena.h"

#include "check.h"
#include "dispatch.h"
#include "softxent.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(THINNED)

#  include <math.h>
#  include <signal.h>
#  include <ucontext.h>

/* Samples in a call. There are more than the 256 labels that a kernel reads at once, in many groups. */
enum { MOST_SAMPLES = 600, MOST_CLASSES = 80, SEEDS = 80 };

/* What lies in the pages. */
enum place { LABELS, CLASSES, MASSES, TEMPERATURES };
enum { N_MASSES = 3 }; /* of a sample's sparse target */

/* ---- A label that changes ---------------------------------------------------------------------------------------- */

/* Three samples: one in front, one among the labels that are read together with it, and one far behind. */
static ptrdiff_t changing[3];
static int64_t bad_label;
static void *labels;
static enum place place;
static int is_f32;
static int label_type, n_classes, bad_in; /* one in so many values is no class */
static arena pages;
static uint64_t accesses;

static void set_label(ptrdiff_t i, int64_t label)
{
    switch (label_type % 4) {
    case 0: ((volatile int8_t *)labels)[i] = (int8_t)label; break;
    case 1: ((volatile int16_t *)labels)[i] = (int16_t)label; break;
    case 2: ((volatile int32_t *)labels)[i] = (int32_t)label; break;
    default: ((volatile int64_t *)labels)[i] = label; break;
    }
}

/* Changes entry i of what lies in the pages: to a good value, or to one that is bad. */
static void set_value(ptrdiff_t i, int is_bad, uint64_t random)
{
    static const double bad_values[] = {-1, NAN, 0, INFINITY, -INFINITY, 0x1p-1000, 0x1p1000};
    const ptrdiff_t entry = i * N_MASSES + (ptrdiff_t)(random % N_MASSES);
    const double mass = is_bad ? bad_values[random % 2] : (double)(random % 4);
    switch (place) {
    case CLASSES: set_label(entry, is_bad ? bad_label : (int64_t)(random % (uint64_t)n_classes)); break;
    case TEMPERATURES: ((volatile double *)labels)[i] = is_bad ? bad_values[random % 7] : 1 + mass; break;
    default:
        if (is_f32)
            ((volatile float *)labels)[entry] = (float)mass;
        else
            ((volatile double *)labels)[entry] = mass;
    }
}

/* Changes the three labels. Each of them is a class most of the time. */
static void change_labels(void)
{
    const uint64_t bits = random_bits();
    for (int i = 0; i < 3; ++i) {
        const uint64_t own = bits >> 16 * i & 0xffff;
        if (place != LABELS) {
            set_value(changing[i], own % (uint64_t)bad_in == 0, own);
            continue;
        }
        set_label(changing[i], own % (uint64_t)bad_in == 0 ? bad_label : (int64_t)(own % (uint64_t)n_classes));
    }
}

static void allow_labels(int protection) { mprotect(pages.start, (size_t)(pages.end - pages.start), protection); }

enum { TRAP_FLAG = 1 << 8, FLAGS = 17 /* the index of the flags among a context's registers; GNU calls it REG_EFL */ };

static void on_access(int number, siginfo_t *info, void *context)
{
    const unsigned char *at = (const unsigned char *)info->si_addr;
    if (at < pages.start || at >= pages.end) signal(number, SIG_DFL); /* any other crash */
    allow_labels(PROT_READ | PROT_WRITE);
    change_labels(), ++accesses;
    ((ucontext_t *)context)->uc_mcontext.gregs[FLAGS] |= TRAP_FLAG;
}

static void on_accessed(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    allow_labels(PROT_NONE);
    ((ucontext_t *)context)->uc_mcontext.gregs[FLAGS] &= ~TRAP_FLAG;
}

/* ---- The calls --------------------------------------------------------------------------------------------------- */

typedef int function(const softxent_block *, ptrdiff_t *);

static int check_labels_f(const softxent_block *b, ptrdiff_t *bad) { return softxent_check_labels(b, NULL, bad); }

static int total_weight_f(const softxent_block *b, ptrdiff_t *bad)
{
    double total;
    return softxent_total_weight_f64(b, &total, bad);
}

typedef struct {
    const char *name;
    function *call;
    int n_classes, n_samples, is_f32, class_apart, has_out, is_general, has_weights;
    enum place place;
} kind;

static const kind kinds[] = {
    {"few classes, loss", softxent_cross_entropy_f32, 3, 600, 1, 0, 0, 0, 0, LABELS},
    {"few classes, gradient", softxent_cross_entropy_f64, 3, 600, 0, 0, 1, 0, 0, LABELS},
    {"few classes, weights", softxent_cross_entropy_f32, 3, 600, 1, 0, 1, 0, 1, LABELS},
    {"classes apart", softxent_cross_entropy_f32, 70, 320, 1, 1, 1, 0, 0, LABELS},
    {"rows", softxent_cross_entropy_f32, 70, 320, 1, 0, 1, 0, 0, LABELS},
    {"rows, weights", softxent_cross_entropy_f64, 70, 320, 0, 0, 0, 0, 1, LABELS},
    {"general, lanes", softxent_cross_entropy_f64, 3, 320, 0, 0, 1, 1, 0, LABELS},
    {"general, rows", softxent_cross_entropy_f32, 70, 300, 1, 0, 1, 1, 0, LABELS},
    {"Hessian's product", softxent_cross_entropy_hvp_f32, 3, 320, 1, 0, 1, 0, 0, LABELS},
    {"begin", softxent_begin_f32, 3, 320, 1, 0, 0, 0, 0, LABELS},
    {"finish", softxent_finish_f32, 3, 320, 1, 0, 1, 0, 0, LABELS},
    {"check_labels", check_labels_f, 3, 600, 0, 0, 0, 0, 0, LABELS},
    {"total_weight", total_weight_f, 3, 600, 0, 0, 0, 0, 1, LABELS},
    {"classes, lanes", softxent_cross_entropy_f32, 3, 320, 1, 0, 1, 0, 0, CLASSES},
    {"classes, rows", softxent_cross_entropy_f32, 70, 320, 1, 0, 1, 0, 0, CLASSES},
    {"classes, rows, weights", softxent_cross_entropy_f64, 70, 320, 0, 0, 1, 0, 1, CLASSES},
    {"classes, general, rows", softxent_cross_entropy_f64, 70, 320, 0, 0, 1, 1, 0, CLASSES},
    {"classes, general, lanes", softxent_cross_entropy_f32, 70, 320, 1, 1, 1, 1, 0, CLASSES},
    {"classes, rank", softxent_cross_entropy_and_rank_f32, 70, 320, 1, 0, 0, 0, 0, CLASSES},
    {"masses, lanes", softxent_cross_entropy_f64, 3, 320, 0, 0, 1, 0, 0, MASSES},
    {"masses, rows", softxent_cross_entropy_f32, 70, 320, 1, 0, 1, 0, 0, MASSES},
    {"masses, general, rows", softxent_cross_entropy_f32, 70, 320, 1, 0, 1, 1, 0, MASSES},
    {"masses, general, lanes", softxent_cross_entropy_f64, 70, 320, 0, 1, 1, 1, 0, MASSES},
    {"masses, rank", softxent_cross_entropy_and_rank_f64, 70, 320, 0, 0, 0, 0, 0, MASSES},
    {"temperatures, lanes", softxent_cross_entropy_f32, 3, 320, 1, 0, 1, 0, 0, TEMPERATURES},
    {"temperatures, rows", softxent_cross_entropy_f64, 70, 320, 0, 0, 1, 0, 0, TEMPERATURES},
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static double logits[MOST_SAMPLES * MOST_CLASSES], out[MOST_SAMPLES * MOST_CLASSES], loss[MOST_SAMPLES];
static double ones[MOST_SAMPLES * N_MASSES], grads[MOST_SAMPLES];
static int64_t ranks[MOST_SAMPLES];
static int64_t still[MOST_SAMPLES * N_MASSES]; /* labels and classes that do not change: 0 in every type */
static softxent_part_f64 parts[MOST_SAMPLES];
static const double UNTOUCHED = -12345;

static double get(const double *reals, ptrdiff_t i, int is_f32)
{
    return is_f32 ? (double)((const float *)(const void *)reals)[i] : reals[i];
}

static void fill(double *reals, ptrdiff_t n, int is_f32, double x)
{
    for (ptrdiff_t i = 0; i < n; ++i) is_f32 ? (void)(((float *)(void *)reals)[i] = (float)x) : (void)(reals[i] = x);
}

static softxent_block block_of(const kind *k, const softxent_isa *isa, const softxent_options *options)
{
    softxent_block b = {.size = sizeof b, .isa = isa, .n_samples = k->n_samples, .n_classes = k->n_classes};
    b.options = k->is_general ? options : NULL;
    b.logits = logits, b.logits_sample_stride = k->class_apart ? 1 : k->n_classes;
    b.logits_class_stride = k->class_apart ? k->n_samples : 1;
    b.labels = k->place == LABELS ? labels : still, b.labels_stride = 1, b.label_type = label_type;
    if (k->place == CLASSES || k->place == MASSES) {
        b.labels = NULL, b.n_masses = b.masses_stride = N_MASSES;
        b.classes = k->place == CLASSES ? labels : still, b.masses = k->place == MASSES ? labels : ones;
    }
    if (k->place == TEMPERATURES) {
        b.temperatures = (const double *)labels, b.temperatures_stride = b.temperature_grad_stride = 1;
        b.temperature_grad = grads;
    }
    b.rank = b.top = ranks, b.rank_stride = b.top_stride = 1;
    b.loss = loss, b.loss_stride = 1, b.grad_scale = 1;
    if (k->has_out)
        b.out = out, b.out_sample_stride = b.logits_sample_stride, b.out_class_stride = b.logits_class_stride;
    if (k->call == softxent_cross_entropy_hvp_f32)
        b.direction = logits, b.direction_sample_stride = k->n_classes, b.direction_class_stride = 1;
    if (k->has_weights) b.sample_weight = ones, b.sample_weight_stride = 1;
    if (k->call == softxent_begin_f32 || k->call == softxent_finish_f32) b.parts = parts, b.all_classes = k->n_classes;
    return b;
}

/* Checks that the samples before `end` have been written, and none from there on; but with sparse targets these may
 * hold anything. */
static void check_written(const kind *k, const softxent_block *b, ptrdiff_t end)
{
    const int has_loss = k->call == softxent_cross_entropy_f32 || k->call == softxent_cross_entropy_f64 ||
                         (k->call == softxent_finish_f32 && !k->has_out);
    const ptrdiff_t n = k->place == CLASSES || k->place == MASSES ? end : k->n_samples;
    for (ptrdiff_t i = 0; i < n; ++i) {
        if (has_loss) CHECK((get(loss, i, k->is_f32) == UNTOUCHED) == (i >= end));
        for (int c = 0; k->has_out && c < k->n_classes; ++c) {
            const ptrdiff_t at = i * b->out_sample_stride + c * b->out_class_stride;
            CHECK((get(out, at, k->is_f32) == UNTOUCHED) == (i >= end));
        }
    }
}

static void run_kind(const kind *k, const softxent_isa *isa, int seed)
{
    const softxent_options warm = {.size = sizeof warm, .temperature = 2};
    const softxent_block b = block_of(k, isa, &warm);
    ptrdiff_t bad = -1;
    n_classes = k->n_classes, bad_in = 2 + seed % 3, bad_label = label_type < SOFTXENT_UINT8 ? -1 : 100;
    if (k->place == CLASSES && label_type < SOFTXENT_UINT8) bad_label = seed % 2 ? -2 : n_classes;
    changing[0] = 2 + (ptrdiff_t)(random_bits() % 60), changing[1] = changing[0] + 20 + (ptrdiff_t)(random_bits() % 60);
    changing[2] = 258 + (ptrdiff_t)(random_bits() % 40);
    place = k->place, is_f32 = k->is_f32;
    memset(pages.start, 0, (size_t)(pages.end - pages.start)); /* classes and masses of 0 */
    for (ptrdiff_t i = 0; i < k->n_samples && place == LABELS; ++i) set_label(i, i % k->n_classes);
    for (ptrdiff_t i = 0; i < k->n_samples && place == TEMPERATURES; ++i) ((double *)labels)[i] = 1;
    fill(loss, k->n_samples, k->is_f32, UNTOUCHED), fill(out, k->n_samples * k->n_classes, k->is_f32, UNTOUCHED);
    fill(ones, k->n_samples * N_MASSES, k->is_f32, 1);
    if (k->call == softxent_finish_f32) {
        softxent_block begin = b;
        CHECK(softxent_begin_f32(&begin, NULL) == SOFTXENT_OK);
    }
    ABOUT("%s, label type %d, seed %d", k->name, label_type, seed);
    accesses = 0, allow_labels(PROT_NONE);
    const int status = k->call(&b, &bad);
    allow_labels(PROT_READ | PROT_WRITE);
    CHECK(accesses > 2);
    if (place == TEMPERATURES) CHECK(status == SOFTXENT_OK || status == SOFTXENT_BAD_ARGUMENT);
    if (place == TEMPERATURES) {
        check_written(k, &b, status == SOFTXENT_OK ? k->n_samples : 0);
        return;
    }
    const int may_be_masses =
        place == MASSES || place == CLASSES; /* the class may be good when it is looked at again */
    CHECK(status == SOFTXENT_OK || (status == SOFTXENT_BAD_LABEL && place != MASSES) ||
          (status == SOFTXENT_BAD_TARGET && may_be_masses));
    if (status == SOFTXENT_OK) bad = k->n_samples;
    CHECK(status == SOFTXENT_OK || bad == changing[0] || bad == changing[1] || bad == changing[2]);
    if (k->call != softxent_finish_f32) check_written(k, &b, bad); /* this function reads the labels twice */
}

static void labels_that_change_before_every_access(void)
{
    struct sigaction access = {.sa_sigaction = on_access, .sa_flags = SA_SIGINFO}, before;
    struct sigaction accessed = {.sa_sigaction = on_accessed, .sa_flags = SA_SIGINFO};
    pages = arena_of(MOST_SAMPLES * N_MASSES * 8);
    sigaction(SIGSEGV, &access, &before), sigaction(SIGTRAP, &accessed, NULL);
    for (int i = 0; i < MOST_SAMPLES * MOST_CLASSES; ++i)
        logits[i] = random_between(-1, 1); /* two floats are two such numbers, too */
    for (int n = 0; softxent_isa_usable(n); ++n) {
        const softxent_isa *isa = NULL;
        CHECK(softxent_isa_select(tally.isa = softxent_isa_usable(n), &isa) == SOFTXENT_OK);
        for (int i = 0; i < N_KINDS; ++i)
            for (label_type = SOFTXENT_INT8; label_type <= SOFTXENT_UINT64; ++label_type) {
                if (kinds[i].place > CLASSES && label_type != SOFTXENT_INT64) continue;
                const int seeds = label_type != SOFTXENT_INT64 ? 1 : kinds[i].n_classes == 3 ? SEEDS : SEEDS / 10;
                const int is_small = kinds[i].place == MASSES && kinds[i].is_f32;
                const size_t n =
                    (size_t)kinds[i].n_samples * (kinds[i].place == CLASSES || kinds[i].place == MASSES ? N_MASSES : 1);
                labels = arena_place(pages, n << (is_small ? 2 : label_type % 4), 1);
                for (int seed = 0; seed < seeds; ++seed) run_kind(&kinds[i], isa, seed);
            }
    }
    sigaction(SIGSEGV, &before, NULL);
}

int main(void)
{
    RUN_TEST(labels_that_change_before_every_access);
    return report();
}

#else

int main(void) { return report(); }

#endif
