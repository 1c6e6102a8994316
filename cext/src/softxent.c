/* softxent.c - the public functions: each checks the block, picks the kernels and calls them. The arithmetic is in the
 * templates. */
#include "softxent.h"

#include <float.h>
#include <string.h>

#include "dispatch.h"
#include "labels.h"

enum dtype { F32, F64 };

static int is_type(int type, enum dtype dtype) { return type >= SOFTXENT_REAL && type <= (dtype == F32 ? 2 : 0); }

static int has_types(const softxent_block *b, enum dtype dtype)
{
    return is_type(b->logits_type, dtype) && is_type(b->target_type, dtype) && is_type(b->direction_type, dtype) &&
           is_type(b->loss_type, dtype) && is_type(b->out_type, dtype);
}

/* ---- The caller's structs ---------------------------------------------------------------------------------------- */

/* The caller may have been compiled with an older header or a newer one: structs grow at their end. Fields that an
 * older struct lacks are zero. Fields that a newer struct has in addition must be zero, because this library cannot do
 * what they ask for. */
static int copy_struct(void *own, size_t size, const void *given, size_t given_size)
{
    enum { LONGEST = 4096 }; /* more is an uninitialized size, for which the stack must not be read */
    if (given_size < sizeof(size_t) || given_size > LONGEST || given_size % sizeof(size_t) != 0) return 0;
    for (size_t i = size; i < given_size; ++i)
        if (((const char *)given)[i]) return 0;
    memset(own, 0, size);
    memcpy(own, given, size < given_size ? size : given_size);
    return 1;
}

/* Room for structs of another size than this library's, and for copies from which something is left out. */
typedef struct {
    softxent_block block;
    softxent_options options;
} request;

/* The block as this library has it, or NULL if that is not possible. */
static const softxent_block *read_block(const softxent_block *b, request *own, int with_options)
{
    if (!b) return NULL;
    if (b->size != sizeof *b) {
        if (!copy_struct(&own->block, sizeof own->block, b, b->size)) return NULL;
        b = &own->block;
    }
    if (with_options && b->options && b->options->size != sizeof *b->options) {
        if (!copy_struct(&own->options, sizeof own->options, b->options, b->options->size)) return NULL;
        own->block = *b, own->block.options = &own->options, b = &own->block;
    }
    return b->n_samples >= 0 && b->n_classes >= 1 ? b : NULL;
}

/* ---- What must be given, and what is sound ----------------------------------------------------------------------- */

static int has_label_type(const softxent_block *b)
{
    return b->label_type >= SOFTXENT_INT8 && b->label_type <= SOFTXENT_UINT64;
}

static int has_labels(const softxent_block *b) { return b->labels && has_label_type(b); }

static int has_masses(const softxent_block *b)
{
    return b->classes && b->masses && has_label_type(b) && b->n_masses >= 0 && !b->use_ignore_index;
}

/* Labels, a target or a sparse target, and only one of them. */
static int has_label_or_target(const softxent_block *b)
{
    if (b->masses || b->classes) return has_masses(b) && !b->labels && !b->target;
    return b->labels ? has_labels(b) && !b->target : b->target != NULL;
}

/* Whether the classes of the block are a range of all classes, which the labels refer to. */
static int is_among_all(const softxent_block *b)
{
    return b->first_class >= 0 && b->all_classes >= b->n_classes && b->first_class <= b->all_classes - b->n_classes;
}

/* Class weights are refused, because only some of them would be at hand. */
static int is_shard(const softxent_block *b)
{
    const softxent_options *o = b->options;
    return has_labels(b) && !has_target(b) && !b->hess && !b->temperatures && is_among_all(b) &&
           !(o && (o->class_weight || o->label_smoothing != 0));
}

SIMD_INLINE int has_what_it_needs(const softxent_block *b, softxent_op op)
{
    if (b->n_samples == 0) return 1;
    if (has_trait(op, NEEDS_LOGITS) && !b->logits) return 0;
    if (has_trait(op, NEEDS_LABELS) && !has_label_or_target(b)) return 0;
    if (has_trait(op, NEEDS_SHARD) && !(b->parts && is_shard(b))) return 0;
    if (has_trait(op, NEEDS_PARTS) && !b->parts) return 0;
    if (has_trait(op, NEEDS_OTHER_PARTS) && !b->other_parts) return 0;
    if (has_trait(op, NEEDS_DENSE_TARGET) && !b->target) return 0;
    if (has_trait(op, NEEDS_TARGET) && !(b->masses ? has_masses(b) : b->target != NULL)) return 0;
    if (has_trait(op, NEEDS_DIRECTION) && !b->direction) return 0;
    if (has_trait(op, NEEDS_LOSS) && !b->loss) return 0;
    if (has_trait(op, NEEDS_OUT) && !b->out) return 0;
    if (has_trait(op, NEEDS_LOSS_OR_OUT) && !(b->out ? b->logits : b->loss)) return 0;
    return !has_trait(op, HEEDS_HESS) || b->out || !b->hess;
}

/* False for nan. */
static int is_between(double x, double low, double high) { return x >= low && x <= high; }

static int is_scale(double x) { return x == 0 || is_between(x, 0x1p-100, 0x1p100); }

/* The option stays at 1 where samples have temperatures of their own. */
static int has_good_temperatures(const softxent_block *b)
{
    const softxent_options *o = b->options;
    if (o && o->temperature != 0 && o->temperature != 1) return 0;
    for (ptrdiff_t i = 0; i < b->n_samples; ++i)
        if (!is_between(b->temperatures[i * b->temperatures_stride], 0x1p-100, 0x1p100)) return 0;
    return 1;
}

_Static_assert(offsetof(softxent_options, log_base) + sizeof(double) == sizeof(softxent_options),
               "has_good_options must say the range of the new option");

SIMD_INLINE int has_good_options(const softxent_block *b, softxent_op op)
{
    const softxent_options *o = b->options;
    const int has_hessian = has_trait(op, HAS_HESSIAN) || (has_trait(op, HEEDS_HESS) && b->hess);
    if (!has_trait(op, HEEDS_TEMPERATURE | HEEDS_OPTIONS)) return 1;
    if (!is_between(b->hess_kind, SOFTXENT_EXACT, SOFTXENT_LIGHTGBM)) return 0;
    if (has_trait(op, HEEDS_OPTIONS | HEEDS_WEIGHTS) && b->temperatures && !has_good_temperatures(b)) return 0;
    if (!o) return 1;
    if (!is_scale(o->temperature)) return 0;
    if (!has_trait(op, HEEDS_OPTIONS)) return 1;
    if (has_hessian && (o->softcap != 0 || o->z_loss != 0)) return 0;
    return is_between(o->label_smoothing, 0, 1) && is_scale(o->softcap) && is_between(o->z_loss, 0, DBL_MAX) &&
           is_between(o->log_base, -DBL_MAX, DBL_MAX);
}

/* ---- The call ---------------------------------------------------------------------------------------------------- */

/* Whether each class of a sparse target's sample is a class or padding. */
static int has_good_classes(const softxent_block *b, ptrdiff_t sample)
{
    ptrdiff_t j = 0;
    while (j < b->n_masses && mass_class(b, sample, j) != LABEL_BAD) ++j;
    return j == b->n_masses;
}

/* A block may serve several functions. The kernels see nothing of it that this one does not look at. */
SIMD_INLINE void leave_out(softxent_block *b, softxent_options *o, softxent_op op)
{
    if (!has_trait(op, NEEDS_PARTS | NEEDS_SHARD)) b->parts = NULL;
    if (!has_trait(op, NEEDS_LOSS | NEEDS_LOSS_OR_OUT)) b->loss = NULL;
    if (!has_trait(op, NEEDS_OUT | HEEDS_OUT)) b->out = NULL;
    if (!has_trait(op, NEEDS_DIRECTION)) b->direction = NULL;
    if (!has_trait(op, HEEDS_OUT)) b->accumulate = 0;
    if (!has_trait(op, HEEDS_HESS)) b->hess = NULL, b->temperature_grad = NULL;
    if (has_trait(op, HEEDS_OPTIONS)) return;
    b->labels = NULL;
    if (!has_trait(op, NEEDS_TARGET | NEEDS_DENSE_TARGET)) b->target = NULL;
    if (!has_trait(op, NEEDS_TARGET)) b->masses = NULL;
    if (!has_trait(op, HEEDS_WEIGHTS)) {
        b->sample_weight = b->grad_output = NULL, b->temperatures = NULL;
        b->grad_scale = has_trait(op, IS_NEGATED) ? -1 : 1;
    }
    if (has_trait(op, HEEDS_TEMPERATURE) && b->options) {
        const softxent_options only_temperature = {.size = sizeof *o, .temperature = b->options->temperature};
        *o = only_temperature, b->options = o;
    }
    if (!has_trait(op, HEEDS_TEMPERATURE)) b->options = NULL, b->where = NULL;
}

/* Inline, because the compiler then knows the operation and leaves out the checks that do not concern it. */
SIMD_INLINE int call(const softxent_block *given, softxent_op op, enum dtype dtype, ptrdiff_t *bad_sample)
{
    request own;
    const softxent_block *b = read_block(given, &own, has_trait(op, HEEDS_TEMPERATURE | HEEDS_OPTIONS));
    if (!b || !has_types(b, dtype) || !has_what_it_needs(b, op) || !has_good_options(b, op))
        return SOFTXENT_BAD_ARGUMENT;
    const softxent_isa *isa = b->isa;
    if (!isa && softxent_isa_select(NULL, &isa) != SOFTXENT_OK) return SOFTXENT_BAD_ISA;
    if (op != OP_CROSS_ENTROPY || b->parts || b->direction) { /* the most frequent call needs no copy */
        own.block = *b, b = &own.block;
        leave_out(&own.block, &own.options, op);
    }
    const ptrdiff_t done = (dtype == F32 ? isa->run_f32 : isa->run_f64)(b, op);
    if (done == b->n_samples) return SOFTXENT_OK;
    if (bad_sample) *bad_sample = done;
    return b->target || (b->masses && has_good_classes(b, done)) ? SOFTXENT_BAD_TARGET : SOFTXENT_BAD_LABEL;
}

#define PUBLIC_BAD_SAMPLE(NAME, function)                                                                              \
    int softxent_##function##_f32(const softxent_block *b, ptrdiff_t *bad) { return call(b, OP_##NAME, F32, bad); }    \
    int softxent_##function##_f64(const softxent_block *b, ptrdiff_t *bad) { return call(b, OP_##NAME, F64, bad); }
#define PUBLIC_LOGITS_ALONE(NAME, function)                                                                            \
    int softxent_##function##_f32(const softxent_block *b) { return call(b, OP_##NAME, F32, NULL); }                   \
    int softxent_##function##_f64(const softxent_block *b) { return call(b, OP_##NAME, F64, NULL); }
#define PUBLIC(NAME, function, last, traits) PUBLIC_##last(NAME, function)
SOFTXENT_OPS(PUBLIC)

/* ---- What labels and weights come to, without logits ----------------------------------------------------------- */

static double real_at(const void *reals, ptrdiff_t i, enum dtype dtype)
{
    return dtype == F32 ? (double)((const float *)reals)[i] : ((const double *)reals)[i];
}

int softxent_check_labels(const softxent_block *given, ptrdiff_t *n_counted, ptrdiff_t *bad_sample)
{
    request own;
    const softxent_block *b = read_block(given, &own, 0);
    if (!b || (b->n_samples > 0 && !(has_labels(b) && (!b->parts || is_among_all(b))))) return SOFTXENT_BAD_ARGUMENT;
    enum { AT_ONCE = 256 };
    int64_t class[AT_ONCE];
    ptrdiff_t counted = 0;
    for (ptrdiff_t begin = 0; begin < b->n_samples; begin += AT_ONCE) {
        const int n = (int)(b->n_samples - begin < AT_ONCE ? b->n_samples - begin : AT_ONCE);
        const int good = label_classes(b, begin, n, class);
        if (good < n) {
            if (bad_sample) *bad_sample = begin + good;
            return SOFTXENT_BAD_LABEL;
        }
        counted += n;
        for (int i = 0; i < n && b->use_ignore_index; ++i) counted -= class[i] == LABEL_IGNORED;
    }
    if (n_counted) *n_counted = counted;
    return SOFTXENT_OK;
}

BEGIN_SSE2
static int total_weight(const softxent_block *given, enum dtype dtype, double *total, ptrdiff_t *bad_sample)
{
    request own;
    const softxent_block *b = read_block(given, &own, 1);
    const int is_sound =
        b && (b->n_samples == 0 || (has_label_or_target(b) && (!b->parts || has_target(b) || is_shard(b))));
    if (!is_sound || !total) return SOFTXENT_BAD_ARGUMENT;
    const void *class_weight = b->options && b->labels ? b->options->class_weight : NULL;
    double sum = 0, carry = 0; /* compensated: the error does not grow with the number of samples */
    for (ptrdiff_t i = 0; i < b->n_samples; ++i) {
        const ptrdiff_t y = b->labels ? label_class(b, i) : 0;
        if (y == LABEL_IGNORED) continue;
        if (y == LABEL_BAD) {
            if (bad_sample) *bad_sample = i;
            return SOFTXENT_BAD_LABEL;
        }
        const double s = b->sample_weight ? real_at(b->sample_weight, i * b->sample_weight_stride, dtype) : 1;
        const double weight = (class_weight ? s * real_at(class_weight, y, dtype) : s) - carry, before = sum;
        sum = before + weight;
        carry = (sum - before) - weight;
    }
    *total = sum;
    return SOFTXENT_OK;
}
END_SSE2

int softxent_total_weight_f32(const softxent_block *b, double *total, ptrdiff_t *bad)
{
    return total_weight(b, F32, total, bad);
}

int softxent_total_weight_f64(const softxent_block *b, double *total, ptrdiff_t *bad)
{
    return total_weight(b, F64, total, bad);
}

const char *softxent_version(void) { return SOFTXENT_VERSION; }

int softxent_abi_version(void) { return SOFTXENT_ABI_VERSION; }

const char *softxent_strerror(int status)
{
    switch (status) {
    case SOFTXENT_OK: return "success";
    case SOFTXENT_BAD_ARGUMENT:
        return "bad argument: a struct whose size is not set, a null pointer, a negative number, an unknown type or an "
               "option out of its range";
    case SOFTXENT_BAD_LABEL: return "a label is not a class in [0, n_classes) and not ignore_index";
    case SOFTXENT_BAD_TARGET: return "a target has an entry that is negative or nan";
    case SOFTXENT_BAD_ISA: return "the instruction set is unknown, or cannot run on this machine";
    default: return "unknown status";
    }
}
