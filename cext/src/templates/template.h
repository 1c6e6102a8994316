/* template.h - includes every template for one dtype, for the instruction set whose vector layer is included.
 *
 * It is included once with DTYPE f32 and once with f64, by a stamp that has set ISA. It defines the words of the
 * templates: `real`, `vec` and `mask`; V(op), an operation of the vector layer; D(NAME), a constant of the dtype;
 * T(name), a type or an inline function; K(name), a kernel, whose name is complete so that a profile shows it. */
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define V(op) PASTE(op, DTYPE)
#define D(NAME) PASTE(NAME, DTYPE)
#define T(name) PASTE(name, DTYPE)
#define K(name) PASTE(PASTE(name, DTYPE), ISA)
#define real PASTE(real, DTYPE)
#define vec PASTE(vec, DTYPE)
#define mask PASTE(mask, DTYPE)
#define LANES D(LANES)

#include "exp.h"
#include "stats.h"
#include "tiles.h"
#include "masses.h"
#include "options.h"
#include "targets.h"
#include "loss.h"
#include "part_kernel.h"
#include "results.h"
#include "rank.h"
#include "check_target.h"
#if HAS_ROW_KERNEL
#  include "row_kernel.h"
#endif
#include "lane_kernel.h"
#include "general_kernel.h"
#include "divergence.h"

/* Computes what needs logits. A sample is read along its classes (in rows) where these lie side by side and fill a few
 * vectors. All other samples go in lanes, and so do all samples where a vector has one lane, except in the general
 * kernel. The choice depends on nothing but the layout of the sample itself, so that a sample has the same bits in any
 * batch. */
static ptrdiff_t K(run_logits)(const softxent_block *b, softxent_op op)
{
    const int in_rows = b->logits_class_stride == 1 && b->n_classes > (op == OP_KL ? KL_LANE_CLASSES : TILE);
    if (needs_general_kernel(b, op) || (in_rows && b->masses && !has_few_masses(b)))
        return K(general_run)(b, op, in_rows);
#if HAS_ROW_KERNEL
    if (in_rows) return K(row_run)(b, op);
#endif
    return K(lane_run)(b, op);
}

/* Computes an operation, also those that need no logits. */
static ptrdiff_t K(run)(const softxent_block *b, softxent_op op)
{
    if (op == OP_MERGE) return K(merge)(b);
    if (op == OP_CHECK_TARGET) return K(check_target)(b);
    if (op != OP_FINISH) return K(run_logits)(b, op);
    const ptrdiff_t good = b->loss ? K(finish_losses)(b) : b->n_samples;
    const ptrdiff_t done = b->out ? K(run_logits)(b, op) : b->n_samples;
    return good < done ? good : done; /* they may differ: another thread may have changed labels in between */
}

#undef PASTE_
#undef PASTE
#undef V
#undef D
#undef T
#undef K
#undef real
#undef vec
#undef mask
#undef LANES
