/* labels.h - one label of any integer type, read once and checked where it is used.
 *
 * Another thread may be writing the labels while the kernel runs. Each is therefore read by one volatile load, and
 * the value that was checked is the value that is used: whatever happens, no index leaves its row. */
#ifndef SOFTXENT_LABELS_H
#define SOFTXENT_LABELS_H

#include "softxent.h"

enum { LABEL_IGNORED = -1, LABEL_BAD = -2 };

static inline int64_t label_value(const softxent_block *b, ptrdiff_t sample)
{
    const ptrdiff_t i = sample * b->labels_stride;
    switch (b->label_type) {
    case SOFTXENT_INT8: return ((const volatile int8_t *)b->labels)[i];
    case SOFTXENT_INT16: return ((const volatile int16_t *)b->labels)[i];
    case SOFTXENT_INT32: return ((const volatile int32_t *)b->labels)[i];
    case SOFTXENT_INT64: return ((const volatile int64_t *)b->labels)[i];
    case SOFTXENT_UINT8: return ((const volatile uint8_t *)b->labels)[i];
    case SOFTXENT_UINT16: return ((const volatile uint16_t *)b->labels)[i];
    case SOFTXENT_UINT32: return ((const volatile uint32_t *)b->labels)[i];
    default: return (int64_t)((const volatile uint64_t *)b->labels)[i]; /* negative: too large for any class */
    }
}

/* The class that labels the sample, LABEL_IGNORED or LABEL_BAD. */
static inline ptrdiff_t label_class(const softxent_block *b, ptrdiff_t sample)
{
    const int64_t label = label_value(b, sample);
    const int wrapped = label < 0 && b->label_type == SOFTXENT_UINT64;
    if (b->use_ignore_index && label == b->ignore_index && !wrapped) return LABEL_IGNORED;
    return label >= 0 && label < b->n_classes ? (ptrdiff_t)label : LABEL_BAD;
}

#endif
