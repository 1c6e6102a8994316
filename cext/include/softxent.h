/* softxent.h - softmax cross-entropy, its gradient and the softmax family over blocks of samples.
 *
 * This is the one public header of the C library. It is C11 and C++, and needs no Python. Every function works on one
 * block of samples: a strided 2-D view of the caller's memory.
 *
 * For each sample with logits z, in nats:
 *
 *     m = max z,   S = sum exp(z - m),   lse = m + log S,   p = exp(z - lse)
 *     index label y    loss = lse - z_y                   grad_k = p_k - (k == y)
 *     target t         loss = sum t_k (lse - z_k)         grad_k = p_k sum(t) - t_k
 *
 * softxent_options has the formulas with options.
 *
 * These rules hold for every function:
 *
 * Shapes.    The arrays logits, target, where, direction, out and hess have an element for each class of each sample.
 *            The element of class k of sample i is at i sample_stride + k class_stride. The arrays loss, rank, top,
 *            labels, sample_weight and grad_output have one element for each sample, at i stride. Strides count
 *            elements. Strides may be negative. Strides of inputs may also be zero.
 * Alignment. An array needs the alignment of its element's type, and no more. Memory that starts at a cache line is a
 *            little faster.
 * Aliasing.  Outputs overlap neither inputs nor each other, with one exception: `out` may be the logits themselves,
 *            with the same pointer, strides and type.
 * Threads.   A call runs on the thread that makes it, allocates nothing and keeps no state. Any number of calls may run
 *            at once, if no two of them write the same memory. To share a block among threads, give each thread a range
 *            of its samples: move the pointers and set n_samples. Only the choice of an instruction set reads something
 *            that another thread might change: the environment. Set `isa` if other threads call setenv.
 * Bits.      The results of a sample depend only on its own logits, target and options, and not on its block. With more
 *            than 64 classes, they also depend on whether the class stride is 1.
 * Errors.    Functions return an enum softxent_status. A status other than SOFTXENT_OK means that nothing was written,
 *            with two exceptions. With SOFTXENT_BAD_LABEL, the samples before the bad one may be done. With
 *            SOFTXENT_BAD_TARGET, the outputs of the bad sample and of all later samples hold anything.
 * Safety.    A label is read once, and is checked where it is used. So nothing is ever read or written outside a block,
 *            even if another thread changes the labels during the call. Infinities and nans are values like others, and
 *            not errors. */
#ifndef SOFTXENT_H
#define SOFTXENT_H

#include <stddef.h>
#include <stdint.h>

#define SOFTXENT_VERSION "0.1.0"
#define SOFTXENT_ABI_VERSION 1 /* goes up if a struct or a function changes so that programs must be compiled anew */

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

/* The status that a function returns. softxent_strerror gives its text in English. */
enum softxent_status {
    SOFTXENT_OK = 0,
    /* A size is not set, a pointer is null, a type is unknown, or an option is out of range. Nothing was written. */
    SOFTXENT_BAD_ARGUMENT = 1,
    /* A label is no class. The samples before it are done. Its sample and all later ones are unchanged. */
    SOFTXENT_BAD_LABEL = 2,
    /* The instruction set is unknown, or this processor cannot run it. */
    SOFTXENT_BAD_ISA = 3,
    /* A target has an entry that is negative or nan. The samples before it are done. Some outputs of its sample and of
     * later ones may have been written. */
    SOFTXENT_BAD_TARGET = 4
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

/* The type of an array's elements. Half precision is for the _f32 functions alone. It becomes float where it is read,
 * and is rounded to nearest even where it is written. All arithmetic is in float. */
enum softxent_element_type {
    SOFTXENT_REAL = 0, /* float in the _f32 functions, double in the _f64 ones */
    SOFTXENT_FLOAT16 = 1,
    SOFTXENT_BFLOAT16 = 2
};

/* The kind of a Hessian's diagonal, with w = s upstream W / (T^2 ln b). The names are those of the libraries that use
 * these formulas. softxent_options defines s, W, T and b; upstream is grad_scale times grad_output. */
enum softxent_hessian {
    SOFTXENT_EXACT = 0,    /* w p (1 - p) */
    SOFTXENT_XGBOOST = 1,  /* max(2 w p (1 - p), 1e-16) */
    SOFTXENT_LIGHTGBM = 2, /* w C / (C - 1) p (1 - p) */
};

/* The versions of the library that a program was linked with. The macros above are the versions that it was compiled
 * with. softxent_version is SOFTXENT_VERSION of the library, a string that lives for ever. softxent_abi_version must
 * equal the program's own SOFTXENT_ABI_VERSION. */
SOFTXENT_API const char *softxent_version(void);
SOFTXENT_API int softxent_abi_version(void);

/* The kernels of one instruction set. They are immutable and valid for ever, and threads may share them. */
typedef struct softxent_isa softxent_isa;

/* Selects the kernels of the instruction set `name`: "scalar", "avx2", "avx512" or "neon". If `name` is NULL, the
 * environment variable SOFTXENT_ISA names the set. If that is not set, the fastest set is selected that the processor
 * and the operating system support. On SOFTXENT_BAD_ISA, *isa is unchanged. The function asks the processor, which
 * takes microseconds in a virtual machine: keep the result. */
SOFTXENT_API int softxent_isa_select(const char *name, const softxent_isa **isa);

/* The name of an instruction set, as softxent_isa_select takes it: a string that lives for ever. NULL for NULL. */
SOFTXENT_API const char *softxent_isa_name(const softxent_isa *isa);

/* The name of the i-th instruction set that this machine can run. The fastest is first and "scalar" is last. NULL for
 * any other i. */
SOFTXENT_API const char *softxent_isa_usable(int i);

/* The text of a status in English, without a full stop or a newline: a string that lives for ever, never NULL. */
SOFTXENT_API const char *softxent_strerror(int status);

/* The options of a loss, the same for every sample. For each sample, with q_k = w_k t_k and W = sum q:
 *
 *     z <- c tanh(z / c)             softcap c; an infinite logit stays infinite
 *     z <- z / T                     temperature T
 *     t <- (1 - e) t + e / A         label smoothing e, over the A classes that `where` allows
 *     loss = s (sum q_k (lse - z_k) / ln b + a lse^2)             base b, z_loss a, sample_weight s
 *     grad_k = s upstream ((p_k W - q_k) / ln b + 2 a lse p_k) / (T cosh^2(logit_k / c))
 *
 *     Hessian = s upstream W / (T^2 ln b) (diag(p) - p p^T)       without softcap and z_loss: it takes neither
 *
 * upstream is grad_scale times grad_output, which are fields of the block. The softmax family reads the temperature and
 * no other option.
 *
 * To use the struct, set all of it to zero, then set `size`, then the options that are wanted. An option that is zero
 * is not used. Later versions of this library add fields at the end of the struct. A program's struct may be shorter:
 * the fields that it lacks count as zero. A program's struct may be longer: it is refused only if a field that this
 * library does not have is not zero. */
typedef struct softxent_options {
    size_t size;              /* sizeof(softxent_options) */
    const void *class_weight; /* w: n_classes non-negative reals side by side; NULL stands for 1 */
    double label_smoothing;   /* e in [0, 1] */
    double temperature;       /* T in [2^-100, 2^100]; 0 stands for 1 */
    double softcap;           /* c in [2^-100, 2^100]; 0 stands for no softcap */
    double z_loss;            /* a >= 0 */
    double log_base;          /* ln b, where b is the base of the logarithm; 0 stands for 1, which is nats */
} softxent_options;

/* The statistics of a sample over a part of its classes. The statistics over no class are n_max = 0 and
 * row_max = -INFINITY, with label_logit = NAN. */
typedef struct softxent_part_f32 {
    float row_max;     /* the largest logit */
    float n_max;       /* the number of classes that have the largest logit */
    float sum_others;  /* sum exp((z - row_max) / T) over the other classes */
    float label_logit; /* the label's logit; NAN if the label's class is not in this part */
} softxent_part_f32;

typedef struct softxent_part_f64 {
    double row_max, n_max, sum_others, label_logit;
} softxent_part_f64;

/* One block of samples. To use the struct, set all of it to zero, then set `size`, then the fields that are needed. The
 * rules of softxent_options about shorter and longer structs hold here too. A `const void *` or `void *` points to
 * float in the _f32 functions and to double in the _f64 functions, unless a type beside it says otherwise. */
typedef struct softxent_block {
    size_t size;                     /* sizeof(softxent_block) */
    const softxent_isa *isa;         /* NULL: each call selects it anew, and may return SOFTXENT_BAD_ISA */
    const softxent_options *options; /* NULL: no option */
    ptrdiff_t n_samples, n_classes;

    const void *logits;
    ptrdiff_t logits_sample_stride, logits_class_stride;
    int logits_type; /* enum softxent_element_type; also target_type, direction_type, loss_type and out_type */

    const void *labels; /* class indices; NULL if `target` is given */
    ptrdiff_t labels_stride;
    int label_type;       /* enum softxent_label_type */
    int use_ignore_index; /* 1: a sample labelled ignore_index has loss 0 and gradient 0, whatever its logits are */
    int64_t ignore_index;

    const void *target; /* t: a distribution over the classes for each sample */
    ptrdiff_t target_sample_stride, target_class_stride;
    int target_type;

    const unsigned char *where; /* 0 removes a class from a sample: p = 0, gradient 0, no smoothing mass */
    ptrdiff_t where_sample_stride, where_class_stride;

    const void *sample_weight; /* s >= 0 multiplies the loss and the gradient of a sample; NULL stands for 1 */
    ptrdiff_t sample_weight_stride;

    const void *direction; /* v, which a Jacobian or a Hessian is multiplied by */
    ptrdiff_t direction_sample_stride, direction_class_stride;
    int direction_type;

    void *loss; /* the loss of each sample; softxent_logsumexp writes its result here */
    ptrdiff_t loss_stride;
    int loss_type;

    void *out; /* the gradient, the softmax, the log_softmax, the product or the Jacobian; NULL for the loss alone */
    ptrdiff_t out_sample_stride, out_class_stride;
    ptrdiff_t out_row_stride; /* from one row of a Jacobian to the next */
    int out_type;
    int accumulate; /* 1: the gradient is added to `out` */

    void *hess; /* the diagonal of the Hessian, with elements of out_type; or NULL */
    ptrdiff_t hess_sample_stride, hess_class_stride;
    int hess_kind; /* enum softxent_hessian */

    double grad_scale; /* multiplies every gradient and Hessian */

    /* grad_output multiplies the gradient and the Hessian of each sample; NULL stands for 1. In float, let
     * u = grad_scale grad_output. If u is below 2^-85, the results lose digits. If u is at most 2^24,
     * probabilities down to 2^-150 count. If u is larger, probabilities down to 2^-126 / u count, but none below
     * 2^-214. */
    const void *grad_output;
    ptrdiff_t grad_output_stride;

    /* For softxent_begin, softxent_merge and softxent_finish. The logits of the block are those of the classes
     * first_class to first_class + n_classes - 1. Labels are in [0, all_classes). */
    void *parts;             /* a softxent_part_f32 or softxent_part_f64 for each sample, side by side */
    const void *other_parts; /* one for each sample, of other classes: softxent_merge reads them */
    ptrdiff_t first_class;
    ptrdiff_t all_classes; /* the number of all classes, of which this block has n_classes */

    int64_t *rank; /* the number of classes that come before the label's; NULL: not wanted */
    ptrdiff_t rank_stride;
    int64_t *top; /* the first class that has the largest logit; NULL: not wanted */
    ptrdiff_t top_stride;

    int target_holds_logits; /* for kl_divergence: the target is softmax(target / T) */

    /* A sparse target, in place of labels or a target: each sample has n_masses classes, of the type label_type, side
     * by side, and their masses. A class of -1 adds nothing, a class that is there twice has the sum of both masses,
     * and all classes that are not there have mass 0. */
    const void *classes;
    const void *masses; /* reals, 0 or more */
    ptrdiff_t n_masses;
    ptrdiff_t masses_stride; /* from one sample to the next, of both */

    const double *temperatures; /* T of each sample, in place of the option; NULL: the option */
    ptrdiff_t temperatures_stride;
    /* The derivative of each loss with respect to its T, times grad_scale and grad_output; NULL: not wanted. */
    double *temperature_grad;
    ptrdiff_t temperature_grad_stride;
} softxent_block;

/* Writes the loss of each sample into `loss`. If `out` is given, writes the gradient with respect to the logits into
 * it, times grad_scale and grad_output: a grad_scale of 0 makes zeros. If `hess` is given, which needs `out`, writes
 * the diagonal of the Hessian into it.
 *
 * Reads logits, and either labels or target; also class_weight, sample_weight and `where` if they are given.
 *
 * Errors: SOFTXENT_BAD_ARGUMENT. SOFTXENT_BAD_LABEL: *bad_sample is the index in the block of the first sample whose
 * label is no class. SOFTXENT_BAD_TARGET: *bad_sample is the index of the first sample whose target has an entry that
 * is negative or nan. `bad_sample` may be NULL. */
SOFTXENT_API int softxent_cross_entropy_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_cross_entropy_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* Writes the loss of each sample into `loss`, with the same bits as softxent_cross_entropy. From the same pass, writes
 * into `rank` the number of classes that come before the label's, and into `top` the first class that has the largest
 * logit. `out` and `hess` are not read or written.
 *
 * A class comes before the label's if its logit is larger, or if its logit is equal and its index is smaller. The order
 * is that of the logits as they are given: no option changes it. Infinite logits have a rank like others. If a target
 * is given, the label is its first largest entry. Only the classes that `where` allows count. If `where` removes the
 * label's class, that class comes behind all that count. Rank and top are -1 if the sample is ignored, if a logit that
 * counts is nan, or if `where` allows no class.
 *
 * Errors: those of softxent_cross_entropy. */
SOFTXENT_API int softxent_cross_entropy_and_rank_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_cross_entropy_and_rank_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* Writes H v of each sample into `out`, where H is the Hessian of the loss and v is `direction`. Reads what
 * softxent_cross_entropy reads, and has its errors. */
SOFTXENT_API int softxent_cross_entropy_hvp_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_cross_entropy_hvp_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* softmax writes p of each sample into `out`, log_softmax writes log p (in nats) into `out`, and logsumexp writes
 * log sum exp z into `loss`. If a logit is +inf and none is nan, then p and log p are nan, and log sum exp z is +inf.
 *
 * Reads logits, `where` if it is given, and of the options the temperature. The block's fields for labels, targets and
 * gradients are not read.
 *
 * Errors: SOFTXENT_BAD_ARGUMENT. */
SOFTXENT_API int softxent_softmax_f32(const softxent_block *block);
SOFTXENT_API int softxent_softmax_f64(const softxent_block *block);
SOFTXENT_API int softxent_log_softmax_f32(const softxent_block *block);
SOFTXENT_API int softxent_log_softmax_f64(const softxent_block *block);
SOFTXENT_API int softxent_logsumexp_f32(const softxent_block *block);
SOFTXENT_API int softxent_logsumexp_f64(const softxent_block *block);

/* Writes the entropy H = -sum p log p of each sample, in nats, into `loss`. If `out` is given, writes its gradient with
 * respect to the logits into it, times grad_scale and grad_output:
 *
 *     dH/dz_k = -p_k (log p_k + H) / T
 *
 * sample_weight, if given, multiplies both. Reads logits and, if given, `where`; of the options only the temperature.
 *
 * Errors: SOFTXENT_BAD_ARGUMENT. */
SOFTXENT_API int softxent_entropy_f32(const softxent_block *block);
SOFTXENT_API int softxent_entropy_f64(const softxent_block *block);

/* Writes the Kullback-Leibler divergence of each sample's target t from p into `loss`, in nats:
 *
 *     sum t (log t - log p) + 1 - sum t,   p = softmax(z / T)
 *
 * over the classes that `where` allows. It is 0 or more. The last two terms vanish if t sums to 1. If `out` is given,
 * writes the gradient (p sum t - t) / T with respect to the logits into it, times grad_scale and grad_output.
 * sample_weight, if given, multiplies both. t is `target`, or softmax(target / T) if target_holds_logits is set. Reads
 * logits and target; of the options only the temperature.
 *
 * Errors: SOFTXENT_BAD_ARGUMENT. SOFTXENT_BAD_TARGET: *bad_sample is the index of the first sample whose target has an
 * entry that is negative or nan, if the target holds no logits. */
SOFTXENT_API int softxent_kl_divergence_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_kl_divergence_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* Writes J v of each sample into `out`, where v is `direction` and J the Jacobian of
 *
 *     softmax_jvp        p,      J = (diag(p) - p p^T) / T: it is symmetric, so that J v = J^T v
 *     log_softmax_jvp    log p,  J v = (v - sum p v) / T
 *     log_softmax_vjp    log p,  J^T v = (v - p sum v) / T
 *
 * Reads logits and direction and, if given, `where`; of the options only the temperature. What `where` removes gets 0.
 *
 * Errors: SOFTXENT_BAD_ARGUMENT. */
SOFTXENT_API int softxent_softmax_jvp_f32(const softxent_block *block);
SOFTXENT_API int softxent_softmax_jvp_f64(const softxent_block *block);
SOFTXENT_API int softxent_log_softmax_jvp_f32(const softxent_block *block);
SOFTXENT_API int softxent_log_softmax_jvp_f64(const softxent_block *block);
SOFTXENT_API int softxent_log_softmax_vjp_f32(const softxent_block *block);
SOFTXENT_API int softxent_log_softmax_vjp_f64(const softxent_block *block);

/* Writes J = diag(p) - p p^T of each sample into `out`: n_classes^2 entries. Entry (i, j) of a sample is at
 * i out_row_stride + j out_class_stride from its first entry. `out` cannot be the logits.
 *
 * Errors: SOFTXENT_BAD_ARGUMENT. */
SOFTXENT_API int softxent_softmax_jacobian_f32(const softxent_block *block);
SOFTXENT_API int softxent_softmax_jacobian_f64(const softxent_block *block);

/* These functions compute a loss if no block holds all classes: the classes come in a stream, or lie on several
 * machines.
 *
 *     begin     writes into `parts` the statistics of each sample over the block's classes
 *     merge     merges `other_parts`, which are of other classes, into `parts`
 *     finish    reads the parts of all classes; writes the loss into `loss`, and the gradient for the block's classes
 *               into `out`
 *
 * `loss` or `out` may be NULL, and is then not written. If `out` is NULL, finish does not read logits. Labels are class
 * indices in [0, all_classes). All three functions must have the same options: temperature and softcap, and for finish
 * also z_loss and log_base. Class weights, smoothing and targets are refused. Instead of a class weight, give the
 * weight of the label's class as the sample's weight. A result differs from that of one block of all classes by
 * roundings.
 *
 * Errors: SOFTXENT_BAD_ARGUMENT. SOFTXENT_BAD_LABEL: *bad_sample, if it is not NULL, is the first sample whose label is
 * outside [0, all_classes). */
SOFTXENT_API int softxent_begin_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_begin_f64(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_merge_f32(const softxent_block *block);
SOFTXENT_API int softxent_merge_f64(const softxent_block *block);
SOFTXENT_API int softxent_finish_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_finish_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* Checks the labels before anything is written. Reads labels alone. *n_counted is the number of samples that are not
 * ignored. Both pointers may be NULL. In a block with `parts`, labels are in [0, all_classes).
 *
 * Errors: SOFTXENT_BAD_ARGUMENT. SOFTXENT_BAD_LABEL: *bad_sample is the first sample whose label is no class. */
SOFTXENT_API int softxent_check_labels(const softxent_block *block, ptrdiff_t *n_counted, ptrdiff_t *bad_sample);

/* Checks the targets before anything is written. Reads targets alone. `bad_sample` may be NULL.
 *
 * Errors: SOFTXENT_BAD_ARGUMENT. SOFTXENT_BAD_TARGET: *bad_sample is the first sample whose target has an entry that is
 * negative or nan. */
SOFTXENT_API int softxent_check_target_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_check_target_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* Computes the number that a mean divides by:
 *
 *     index labels    *total = sum of s_n w_y over the samples n that are not ignored, with label y of n
 *     targets         *total = sum of s_n
 *
 * Reads labels and weights alone. In a block with `parts`, labels are in [0, all_classes).
 *
 * Errors: SOFTXENT_BAD_ARGUMENT. SOFTXENT_BAD_LABEL: *bad_sample, if it is not NULL, is the first sample whose label is
 * no class. */
SOFTXENT_API int softxent_total_weight_f32(const softxent_block *block, double *total, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_total_weight_f64(const softxent_block *block, double *total, ptrdiff_t *bad_sample);

#ifdef __cplusplus
}
#endif

#endif
