/* labels.h - labels of any integer type, read once and checked where they are used.
 *
 * Another thread may be writing the labels while the kernel runs. Each is therefore read by one volatile load, and
 * the value that was checked is the value that is used: whatever happens, no index leaves its row. */
#ifndef SOFTXENT_LABELS_H
#define SOFTXENT_LABELS_H

#include "softxent.h"

/* Beside the classes, which are 0 and more: what every sample has that counts is above LABEL_BAD. */
enum { LABEL_NONE = -1 /* there are no labels */, LABEL_BAD = -2, LABEL_IGNORED = -3 };

static inline int64_t label_value(const void *labels, int type, ptrdiff_t i)
{
    switch (type) {
    case SOFTXENT_INT8: return ((const volatile int8_t *)labels)[i];
    case SOFTXENT_INT16: return ((const volatile int16_t *)labels)[i];
    case SOFTXENT_INT32: return ((const volatile int32_t *)labels)[i];
    case SOFTXENT_INT64: return ((const volatile int64_t *)labels)[i];
    case SOFTXENT_UINT8: return ((const volatile uint8_t *)labels)[i];
    case SOFTXENT_UINT16: return ((const volatile uint16_t *)labels)[i];
    case SOFTXENT_UINT32: return ((const volatile uint32_t *)labels)[i];
    default: return (int64_t)((const volatile uint64_t *)labels)[i]; /* negative: too large for any class */
    }
}

/* The class that labels the sample, LABEL_IGNORED or LABEL_BAD. `type` is the block's, as a constant where that pays.
 */
static inline ptrdiff_t label_class(const softxent_block *b, const int type, ptrdiff_t sample)
{
    const int64_t label = label_value(b->labels, type, sample * b->labels_stride);
    const int wrapped = label < 0 && type == SOFTXENT_UINT64;
    const ptrdiff_t class = (uint64_t)label < (uint64_t)b->n_classes ? (ptrdiff_t)label : LABEL_BAD;
    return b->use_ignore_index && label == b->ignore_index && !wrapped ? LABEL_IGNORED : class;
}

/* Of n samples from `begin` on, into `class`; returns how many are bad. */
static inline int label_classes_of(const softxent_block *b, const int type, ptrdiff_t begin, int n, ptrdiff_t *class)
{
    int n_bad = 0;
    for (int i = 0; i < n; ++i) {
        class[i] = label_class(b, type, begin + i);
        n_bad += class[i] == LABEL_BAD;
    }
    return n_bad;
}

/* The same; returns how many come before the first that is bad. The usual types have loops of their own. */
static inline int label_classes(const softxent_block *b, ptrdiff_t begin, int n, ptrdiff_t *class)
{
    int n_bad = 0;
    switch (b->label_type) {
    case SOFTXENT_INT64: n_bad = label_classes_of(b, SOFTXENT_INT64, begin, n, class); break;
    case SOFTXENT_INT32: n_bad = label_classes_of(b, SOFTXENT_INT32, begin, n, class); break;
    case SOFTXENT_UINT8: n_bad = label_classes_of(b, SOFTXENT_UINT8, begin, n, class); break;
    default: n_bad = label_classes_of(b, b->label_type, begin, n, class);
    }
    for (int i = 0; i < n && n_bad; ++i)
        if (class[i] == LABEL_BAD) return i;
    return n;
}

#endif
