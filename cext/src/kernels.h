/* kernels.h - the table that each instruction set fills in, and what the kernels are asked to do.
 *
 * Everything below the public functions and above the templates. The tables are the only symbols that the stamps
 * (kernels_*.c) export; on a processor family that a stamp is not for, its table has no kernels. */
#ifndef SOFTXENT_KERNELS_H
#define SOFTXENT_KERNELS_H

#include "softxent.h"

/* 32-bit x86 computes in SSE2 between these two: the x87 unit that compilers take there by default keeps more digits
 * than a float or a double has, here and there, and so breaks all that is derived from results rounded once. */
#if !defined(__i386__)
#  define BEGIN_SSE2
#  define END_SSE2
#elif defined(__clang__)
#  define BEGIN_SSE2 _Pragma("clang attribute push(__attribute__((target(\"sse2\"))), apply_to = function)")
#  define END_SSE2 _Pragma("clang attribute pop")
#else
#  define BEGIN_SSE2 _Pragma("GCC push_options") _Pragma("GCC target(\"sse2,fpmath=sse\")")
#  define END_SSE2 _Pragma("GCC pop_options")
#endif

/* Up to TILE classes, samples go in lanes; a tile, which stays in the first-level cache, holds so many vectors. No
 * vector has more lanes than MOST_LANES. */
enum { TILE = 64, MOST_LANES = 16 };

/* What to compute of each sample. */
typedef enum {
    OP_CROSS_ENTROPY, /* loss, and into `out`, if given, the gradient */
    OP_RANK,          /* loss, and where the label stands among the logits */
    OP_SOFTMAX,
    OP_LOG_SOFTMAX,
    OP_LOGSUMEXP, /* into `loss` */
    OP_BEGIN,     /* what the classes at hand say of each sample, into `parts` */
    OP_FINISH,    /* the loss and the gradient, from `parts` */
    OP_HVP,       /* the loss's Hessian times `direction` */
    OP_JVP,       /* the softmax's Jacobian times `direction` */
    OP_JACOBIAN,
    OP_MERGE,        /* `other_parts` into `parts` */
    OP_CHECK_TARGET, /* nothing: whether targets are masses */
} softxent_op;

/* Whether the losses of labels or targets are asked for, of all classes. */
static inline int has_loss(softxent_op op) { return op == OP_CROSS_ENTROPY || op == OP_RANK; }

/* Whether the output is the loss's gradient. */
static inline int has_gradient(softxent_op op) { return op == OP_CROSS_ENTROPY || op == OP_FINISH; }

/* Whether the output is made of exps that an earlier sweep has formed. */
static inline int has_exps(softxent_op op)
{
    return op == OP_CROSS_ENTROPY || op == OP_SOFTMAX || op == OP_HVP || op == OP_JVP;
}

/* The row and lane kernels count a sample's maxima in lanes of float, which are whole numbers up to here. */
enum { MOST_COUNTED_CLASSES = 1 << 24 };

/* Whether a call has anything that the row and lane kernels do not know. */
static inline int needs_general_kernel(const softxent_block *b, softxent_op op)
{
    const softxent_options *o = b->options;
    if (b->n_classes > MOST_COUNTED_CLASSES) return 1;
    if (op > OP_FINISH || b->where || b->hess) return 1;
    if (b->out && b->out_type != b->logits_type && b->out_type != SOFTXENT_REAL) return 1;
    return o && ((o->temperature != 0 && o->temperature != 1) || o->softcap > 0);
}

/* Where the density q of a loss's target lies. */
typedef enum {
    INDEX,
    SMOOTHED, /* the same everywhere, but for what the label adds */
    DENSE
} softxent_target_kind;

static inline softxent_target_kind target_kind_of(const softxent_block *b)
{
    const softxent_options *o = b->options;
    const int smooth = o && o->label_smoothing > 0;
    return b->target || (smooth && o->class_weight) ? DENSE : smooth ? SMOOTHED : INDEX;
}

/* Returns n_samples, or the index of the first sample whose label is no class or whose target has an entry that is no
 * mass. */
typedef ptrdiff_t softxent_kernel(const softxent_block *block, softxent_op op);

struct softxent_isa {
    const char *name;
    softxent_kernel *run_f32, *run_f64; /* NULL where this build has no such kernels */
};

extern const softxent_isa softxent_kernels_scalar, softxent_kernels_avx2, softxent_kernels_avx512,
    softxent_kernels_neon;

#endif
