/* softxent.h - softmax cross-entropy, its gradient and the softmax family over blocks of samples.
 *
 * The one public header of the C library: C11 and C++, no Python. Every function works on one block of samples,
 * a strided 2-D view of the caller's memory, on the calling thread: nothing is allocated, no thread is started and
 * no state is kept, so any number of threads may call at once, each with its own range of samples.
 *
 * With logits z, m = max z, S = sum exp(z - m), lse = m + log S, p = exp(z - lse), per sample:
 *     index label y    loss = lse - z_y                   grad_k = p_k - (k == y)
 *     target t         loss = sum t_k (lse - z_k)         grad_k = p_k sum(t) - t_k
 * in nats. Every stride counts elements, may be zero (inputs) or negative, and no alignment beyond the element's own
 * is needed. A sample's results depend on its own logits and label alone, to the bit; with more than 32 classes also on
 * whether its class stride is 1. */
#ifndef SOFTXENT_H
#define SOFTXENT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(SOFTXENT_SHARED)
#  ifdef SOFTXENT_BUILD
#    define SOFTXENT_API __declspec(dllexport)
#  else
#    define SOFTXENT_API __declspec(dllimport)
#  endif
#elif defined(__GNUC__)
#  define SOFTXENT_API __attribute__((visibility("default")))
#else
#  define SOFTXENT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a function returns. softxent_strerror says it in words. */
enum softxent_status {
    SOFTXENT_OK = 0,
    SOFTXENT_BAD_ARGUMENT = 1, /* a null pointer, a negative size, an unknown type: nothing was touched */
    SOFTXENT_BAD_LABEL = 2,    /* a label is no class: samples before it are done, it and later ones untouched */
    SOFTXENT_BAD_ISA = 3       /* the instruction set asked for is unknown, or this processor cannot run it */
};

enum softxent_label_type {
    SOFTXENT_INT8 = 0,
    SOFTXENT_INT16 = 1,
    SOFTXENT_INT32 = 2,
    SOFTXENT_INT64 = 3,
    SOFTXENT_UINT8 = 4,
    SOFTXENT_UINT16 = 5,
    SOFTXENT_UINT32 = 6,
    SOFTXENT_UINT64 = 7
};

/* The kernels of one instruction set: immutable, valid for ever, shared freely between threads. */
typedef struct softxent_isa softxent_isa;

/* Picks the kernels called `name` ("scalar", "avx2", "avx512", "neon"). With NULL: what the environment variable
 * SOFTXENT_ISA names, else the fastest that processor and operating system support. On SOFTXENT_BAD_ISA *isa is
 * left alone. It asks the processor, which inside a virtual machine takes microseconds: keep the answer. */
SOFTXENT_API int softxent_isa_select(const char *name, const softxent_isa **isa);
SOFTXENT_API const char *softxent_isa_name(const softxent_isa *isa);

/* The name of the i-th instruction set usable here, the fastest first and "scalar" last; NULL past the end. */
SOFTXENT_API const char *softxent_isa_usable(int i);

SOFTXENT_API const char *softxent_strerror(int status);

/* One block of samples. Zero the struct, set `size`, fill in what is needed. The pointers are to float in the _f32
 * functions and to double in the _f64 ones. No output may overlap an input, but for `out`, which may be the logits
 * themselves (same pointer, same strides). */
typedef struct softxent_block {
    size_t size;             /* sizeof(softxent_block): tells this version of the struct from later, longer ones */
    const softxent_isa *isa; /* NULL: selected anew in each call */
    ptrdiff_t n_samples, n_classes;

    const void *logits;
    ptrdiff_t logits_sample_stride, logits_class_stride;

    const void *labels; /* class indices; or NULL, and `target` is given */
    ptrdiff_t labels_stride;
    int label_type;       /* enum softxent_label_type */
    int use_ignore_index; /* if so, a sample labelled ignore_index has loss 0, gradient 0, whatever it holds */
    int64_t ignore_index;

    const void *target; /* a distribution over the classes for each sample */
    ptrdiff_t target_sample_stride, target_class_stride;

    void *loss; /* the loss of each sample; for logsumexp, that */
    ptrdiff_t loss_stride;

    void *out; /* the gradient, or the softmax; NULL for the loss alone */
    ptrdiff_t out_sample_stride, out_class_stride;
    int accumulate; /* the gradient is added to what `out` holds */

    double grad_scale;       /* multiplies every gradient */
    const void *grad_output; /* and so does this, per sample, unless NULL */
    ptrdiff_t grad_output_stride;
} softxent_block;

/* Loss of each sample into `loss` and, with `out`, its gradient. On SOFTXENT_BAD_LABEL *bad_sample (which may be
 * NULL) is the index in the block of the first sample whose label is no class. */
SOFTXENT_API int softxent_cross_entropy_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_cross_entropy_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* p, log p, or log sum exp z of each sample; the first two into `out`, the last into `loss`. What a block says of
 * labels, targets and gradients is not looked at. */
SOFTXENT_API int softxent_softmax_f32(const softxent_block *block);
SOFTXENT_API int softxent_softmax_f64(const softxent_block *block);
SOFTXENT_API int softxent_log_softmax_f32(const softxent_block *block);
SOFTXENT_API int softxent_log_softmax_f64(const softxent_block *block);
SOFTXENT_API int softxent_logsumexp_f32(const softxent_block *block);
SOFTXENT_API int softxent_logsumexp_f64(const softxent_block *block);

/* Reads the labels alone: *n_counted is the number that are not ignored. On SOFTXENT_BAD_LABEL, *bad_sample is the
 * first that is no class. For a caller that wants to know before anything is written. */
SOFTXENT_API int softxent_check_labels(const softxent_block *block, ptrdiff_t *n_counted, ptrdiff_t *bad_sample);

#ifdef __cplusplus
}
#endif

#endif
