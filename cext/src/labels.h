/* labels.h - labels of any integer type, read once and checked where they are used.
 *
 * Another thread may be writing the labels while a kernel runs. So each label is read by one volatile load, and the
 * value that is used is the value that was checked: whatever happens, no index is outside its row. */
#ifndef SOFTXENT_LABELS_H
#define SOFTXENT_LABELS_H

#include "simd/common.h"
#include "softxent.h"

/* What may stand in place of a class, which is 0 or more. Every sample that counts has a value above LABEL_BAD. */
enum { LABEL_NONE = -1 /* there are no labels */, LABEL_BAD = -2, LABEL_IGNORED = -3 };

SIMD_INLINE int64_t label_value(const void *labels, int type, ptrdiff_t i)
{
    switch (type) {
    case SOFTXENT_INT8: return ((const volatile int8_t *)labels)[i];
    case SOFTXENT_INT16: return ((const volatile int16_t *)labels)[i];
    case SOFTXENT_INT32: return ((const volatile int32_t *)labels)[i];
    case SOFTXENT_INT64: return ((const volatile int64_t *)labels)[i];
    case SOFTXENT_UINT8: return ((const volatile uint8_t *)labels)[i];
    case SOFTXENT_UINT16: return ((const volatile uint16_t *)labels)[i];
    case SOFTXENT_UINT32: return ((const volatile uint32_t *)labels)[i];
    default: return (int64_t)((const volatile uint64_t *)labels)[i]; /* negative if too large for any class */
    }
}

/* The class of a label, LABEL_IGNORED or LABEL_BAD. In a block with parts, which has only some of all classes, the
 * class is counted from the block's first class; a class of another block is LABEL_NONE. */
SIMD_INLINE ptrdiff_t class_of(const softxent_block *b, const int type, int64_t label)
{
    const int wrapped = label < 0 && type == SOFTXENT_UINT64;
    if (b->use_ignore_index && label == b->ignore_index && !wrapped) return LABEL_IGNORED;
    if (!b->parts) return (uint64_t)label < (uint64_t)b->n_classes ? (ptrdiff_t)label : LABEL_BAD;
    if ((uint64_t)label >= (uint64_t)b->all_classes) return LABEL_BAD;
    const ptrdiff_t here = (ptrdiff_t)label - b->first_class;
    return here >= 0 && here < b->n_classes ? here : LABEL_NONE;
}

SIMD_INLINE ptrdiff_t label_class(const softxent_block *b, ptrdiff_t sample)
{
    return class_of(b, b->label_type, label_value(b->labels, b->label_type, sample * b->labels_stride));
}

/* The class of a label of a sparse target, LABEL_NONE for padding (-1), or LABEL_BAD. */
SIMD_INLINE ptrdiff_t sparse_class(int64_t label, const int type, ptrdiff_t n_classes)
{
    if ((uint64_t)label < (uint64_t)n_classes) return (ptrdiff_t)label;
    return label == -1 && type != SOFTXENT_UINT64 ? LABEL_NONE : LABEL_BAD;
}

SIMD_INLINE ptrdiff_t mass_class(const softxent_block *b, ptrdiff_t sample, ptrdiff_t j)
{
    const int64_t label = label_value(b->classes, b->label_type, sample * b->masses_stride + j);
    return sparse_class(label, b->label_type, b->n_classes);
}

/* Writes the classes of n samples from `begin` on, and returns how many come before the first bad label. `type` is the
 * block's label type. The first loop only decides whether all labels are classes; if they are not, or if ignore_index
 * or parts matter, the second loop looks at each label. */
SIMD_INLINE int classes_of_type(const softxent_block *b, const int type, ptrdiff_t begin, int n, int64_t *class)
{
    const uint64_t last = (uint64_t)b->n_classes - 1;
    uint64_t signs = 0; /* the sign bits of the labels and of (last - label) */
    for (int i = 0; i < n; ++i) {
        class[i] = label_value(b->labels, type, (begin + i) * b->labels_stride);
        signs |= (uint64_t)class[i] | (last - (uint64_t)class[i]);
    }
    int good = 0;
    if (!(signs >> 63) && !b->use_ignore_index && !b->parts) return n;
    for (; good < n; ++good) {
        class[good] = class_of(b, type, class[good]);
        if (class[good] == LABEL_BAD) break;
    }
    return good;
}

/* The most frequent types have loops of their own. */
SIMD_INLINE int label_classes(const softxent_block *b, ptrdiff_t begin, int n, int64_t *class)
{
    switch (b->label_type) {
    case SOFTXENT_INT64: return classes_of_type(b, SOFTXENT_INT64, begin, n, class);
    case SOFTXENT_INT32: return classes_of_type(b, SOFTXENT_INT32, begin, n, class);
    case SOFTXENT_UINT8: return classes_of_type(b, SOFTXENT_UINT8, begin, n, class);
    default: return classes_of_type(b, b->label_type, begin, n, class);
    }
}

#endif
