/* kernels.h - the table that each instruction set fills in, and what the kernels are asked to do.
 *
 * Everything below the public functions and above the templates. The tables are the only symbols that the stamps
 * (kernels_*.c) export; on a processor family that a stamp is not for, its table has no kernels. */
#ifndef SOFTXENT_KERNELS_H
#define SOFTXENT_KERNELS_H

#include <stddef.h>

#include "ops.h"
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

/* The row and lane kernels count a sample's maxima in lanes of float, which are whole numbers up to here. */
enum { MOST_COUNTED_CLASSES = 1 << 24 };

/* Whether the row and lane kernels know all that the options ask for: what they know is taken out of a copy, of which
 * nothing may be left. An option that is added to the struct is unknown to them until it is named here. */
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

/* The block's last field when the row and lane kernels were last looked at. One that is added to the struct breaks the
 * build here, until it is decided whether they know it. */
_Static_assert(sizeof(softxent_block) - offsetof(softxent_block, top_stride) - sizeof(ptrdiff_t) <
                   _Alignof(softxent_block),
               "needs_general_kernel must say who knows the block's new field");

/* Whether a call has anything that the row and lane kernels do not know. */
static inline int needs_general_kernel(const softxent_block *b, softxent_op op)
{
    if (has_trait(op, IS_GENERAL) || b->n_classes > MOST_COUNTED_CLASSES || b->where || b->hess) return 1;
    if (b->out && b->out_type != b->logits_type && b->out_type != SOFTXENT_REAL) return 1;
    return !are_plain_options(b->options);
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
