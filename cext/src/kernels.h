/* kernels.h - the table that each instruction set fills in, and how a call is given to its kernels.
 *
 * This file is below the public functions and above the templates. The tables are the only symbols that the stamps
 * (kernels_*.c) export. On a processor family that a stamp is not for, its table has no kernels. */
#ifndef SOFTXENT_KERNELS_H
#define SOFTXENT_KERNELS_H

#include <stddef.h>

#include "ops.h"
#include "softxent.h"

/* Between these two, 32-bit x86 computes with SSE2. Compilers take the x87 unit there by default, which sometimes keeps
 * more digits than a float or a double has. This breaks everything that depends on results that are rounded once. */
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

/* Samples of up to TILE classes go in lanes. A tile holds up to TILE vectors, and stays in the first-level cache. No
 * vector has more than MOST_LANES lanes. */
enum { TILE = 64, MOST_LANES = 16 };

/* The row and lane kernels count a sample's maxima in lanes of float, which are exact whole numbers up to this. */
enum { MOST_COUNTED_CLASSES = 1 << 24 };

/* Whether the row and lane kernels handle all that the options ask for. The options that they handle are cleared in a
 * copy, and then nothing may be left. So an option that is added to the struct goes to the general kernel until it is
 * named here. */
static inline int are_plain_options(const softxent_options *o)
{
    if (!o) return 1;
    softxent_options rest = *o;
    const unsigned char *bytes = (const unsigned char *)&rest;
    rest.size = 0, rest.class_weight = NULL, rest.label_smoothing = rest.z_loss = rest.log_base = 0;
    if (rest.temperature == 1) rest.temperature = 0;
    size_t i = 0;
    while (i < sizeof rest && bytes[i] == 0) ++i;
    return i == sizeof rest;
}

/* temperature_grad_stride was the last field of the block when the row and lane kernels were last checked. A field that
 * is added breaks the build here, until it is decided whether they handle it. */
_Static_assert(sizeof(softxent_block) - offsetof(softxent_block, temperature_grad_stride) - sizeof(ptrdiff_t) <
                   _Alignof(softxent_block),
               "needs_general_kernel must say who knows the block's new field");

/* Whether a call asks for anything that the row and lane kernels do not handle. */
static inline int needs_general_kernel(const softxent_block *b, softxent_op op)
{
    if (has_trait(op, IS_GENERAL) || b->n_classes > MOST_COUNTED_CLASSES || b->where || b->hess) return 1;
    if (b->temperatures || b->temperature_grad) return 1;
    if (b->out && b->out_type != b->logits_type && b->out_type != SOFTXENT_REAL) return 1;
    return !are_plain_options(b->options);
}

/* The target kind: in which classes the target's density q has entries. */
typedef enum {
    INDEX,    /* at the label; also where there is no target */
    SMOOTHED, /* the same entry in every class, and what the label adds */
    DENSE,
    ITSELF, /* q = p: the cross-entropy of the softmax with itself is its entropy */
    SPARSE, /* in a few classes, which are handled one by one; in the row kernel alone */
} softxent_target_kind;

static inline int is_smooth(const softxent_options *o) { return o && o->label_smoothing > 0; }

/* Whether a target has entries of its own in classes that are not the label's. */
static inline int has_target(const softxent_block *b) { return b->target || b->masses; }

static inline softxent_target_kind target_kind_of(const softxent_block *b, softxent_op op)
{
    const int smooth = is_smooth(b->options);
    if (op == OP_ENTROPY) return ITSELF;
    if (!has_trait(op, HAS_LOSS)) return INDEX;
    return has_target(b) || (smooth && b->options->class_weight) ? DENSE : smooth ? SMOOTHED : INDEX;
}

/* The most classes of a sparse target that the row kernel handles one by one. It leaves to the general kernel what has
 * more of them, what smoothes them with weights of the classes, and outputs in which an entry that is changed would be
 * rounded twice. */
enum { MOST_MASSES = 64 };
static inline int has_few_masses(const softxent_block *b)
{
    return b->n_masses <= MOST_MASSES && !(is_smooth(b->options) && b->options->class_weight) &&
           !(b->out && b->out_type != SOFTXENT_REAL);
}

/* Whether exps may be stored in the output until the third sweep. */
static inline int may_store_exps(const softxent_block *b, softxent_op op)
{
    return has_trait(op, HAS_EXPS) && !(has_trait(op, REREADS_LOGITS) && b->out == b->logits);
}

/* Returns n_samples, or the index of the first bad sample: its label is no class, or its target has an entry that is
 * negative or nan. */
typedef ptrdiff_t softxent_kernel(const softxent_block *block, softxent_op op);

struct softxent_isa {
    const char *name;
    softxent_kernel *run_f32, *run_f64; /* NULL where this build has no such kernels */
};

/* The instruction sets in order of preference; the last one runs everywhere. */
#define SOFTXENT_ISAS(ISA) ISA(avx512) ISA(avx2) ISA(neon) ISA(scalar)

#define SOFTXENT_DECLARE_ISA(isa) extern const softxent_isa softxent_kernels_##isa;
SOFTXENT_ISAS(SOFTXENT_DECLARE_ISA)
#undef SOFTXENT_DECLARE_ISA

#endif
