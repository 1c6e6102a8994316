/* softxent.h - softmax cross-entropy, its gradient and the softmax family over blocks of samples.
 *
 * The one public header of the C library: C11 and C++, no Python. Every function works on one block of samples,
 * a strided 2-D view of the caller's memory.
 *
 * With logits z, m = max z, S = sum exp(z - m), lse = m + log S, p = exp(z - lse), per sample:
 *     index label y    loss = lse - z_y                   grad_k = p_k - (k == y)
 *     target t         loss = sum t_k (lse - z_k)         grad_k = p_k sum(t) - t_k
 * in nats. What the options make of this is said at softxent_options.
 *
 * What holds for every function:
 *
 * Shapes.    Arrays of logits' kind (logits, target, where, direction, out, hess) have an element for each class of
 *            each sample: that of sample i's class k is at i sample_stride + k class_stride. Loss, rank, top, labels,
 *            sample_weight and grad_output have one for each sample, at i stride. Strides count elements and may be
 *            negative or, of inputs, zero.
 * Alignment. That of the element's type, no more. Memory that starts at a cache line is a little faster.
 * Aliasing.  Outputs overlap neither inputs nor each other, but that `out` may be the logits themselves: the same
 *            pointer, strides and type.
 * Threads.   A call runs on the thread that makes it, allocates nothing and keeps no state: any number may run at
 *            once, as long as no two write the same memory. Each thread takes a range of samples, by moving the
 *            pointers and setting n_samples. Only the choice of an instruction set reads what another thread might
 *            change, the environment: set `isa` where threads call setenv.
 * Bits.      A sample's results depend on its own logits, target and options alone, whatever the block it is in; with
 *            more than 64 classes also on whether its class stride is 1.
 * Errors.    Functions return an enum softxent_status. One that is not SOFTXENT_OK says that nothing was written, but
 *            that before SOFTXENT_BAD_LABEL the samples may be done that precede the bad one, and that outputs hold
 *            anything after SOFTXENT_BAD_TARGET from the bad one on. Labels are read once and
 *            checked where they are used: nothing is ever read or written beyond a block, also if another thread
 *            changes its labels meanwhile. Infinities and nan are values like others and no errors. */
#ifndef SOFTXENT_H
#define SOFTXENT_H

#include <stddef.h>
#include <stdint.h>

#define SOFTXENT_VERSION "0.1.0"
#define SOFTXENT_ABI_VERSION 1 /* goes up when a program must be compiled anew: a struct or a function has changed */

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
    SOFTXENT_BAD_ARGUMENT = 1, /* a size not set, a null pointer, an unknown type, an option out of its range: nothing
                                * was touched */
    SOFTXENT_BAD_LABEL = 2,    /* a label is no class: samples before it are done, it and later ones untouched */
    SOFTXENT_BAD_ISA = 3,      /* the instruction set asked for is unknown, or this processor cannot run it */
    SOFTXENT_BAD_TARGET = 4    /* an entry of a target is negative or nan: samples before it are done, of it and later
                                * ones some outputs may have been written */
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

/* What an array of logits' kind holds. In the _f32 functions it may be half precision, which is widened where it is
 * read and rounded to nearest even where it is written; all arithmetic is in float. */
enum softxent_element_type {
    SOFTXENT_REAL = 0, /* float in the _f32 functions, double in the _f64 ones */
    SOFTXENT_FLOAT16 = 1,
    SOFTXENT_BFLOAT16 = 2
};

/* What stands for the diagonal of a sample's Hessian, with w = s upstream W / (T^2 ln b). */
enum softxent_hessian {
    SOFTXENT_EXACT = 0,    /* w p (1 - p) */
    SOFTXENT_XGBOOST = 1,  /* max(2 w p (1 - p), 1e-16) */
    SOFTXENT_LIGHTGBM = 2, /* w C / (C - 1) p (1 - p) */
};

/* What a program was linked with, where the macros say what it was compiled with: SOFTXENT_VERSION of the library, a
 * string that lives for ever; and SOFTXENT_ABI_VERSION, which must be the program's own. */
SOFTXENT_API const char *softxent_version(void);
SOFTXENT_API int softxent_abi_version(void);

/* The kernels of one instruction set: immutable, valid for ever, shared freely between threads. */
typedef struct softxent_isa softxent_isa;

/* Picks the kernels called `name` ("scalar", "avx2", "avx512", "neon"). With NULL: what the environment variable
 * SOFTXENT_ISA names, else the fastest that processor and operating system support. On SOFTXENT_BAD_ISA *isa is
 * left alone. It asks the processor, which inside a virtual machine takes microseconds: keep the answer. */
SOFTXENT_API int softxent_isa_select(const char *name, const softxent_isa **isa);

/* The name by which it is picked: a string that lives for ever. NULL of NULL. */
SOFTXENT_API const char *softxent_isa_name(const softxent_isa *isa);

/* The name of the i-th instruction set usable here, the fastest first and "scalar" last; NULL for any other i. */
SOFTXENT_API const char *softxent_isa_usable(int i);

/* A status in English, without a full stop or a newline: a string that lives for ever. Never NULL. */
SOFTXENT_API const char *softxent_strerror(int status);

/* The options of a loss, the same for every sample. Zero the struct, set `size`, fill in what is wanted: zero leaves
 * each of them out. Later versions add to its end; what a program's shorter struct lacks counts as zero, and a longer
 * one is refused only if what this library does not know is not zero. Per sample, with q_k = w_k t_k and W = sum q:
 *
 *     z <- c tanh(z / c)             softcap c; an infinite logit stays what it is
 *     z <- z / T                     temperature T
 *     t <- (1 - e) t + e / A         label smoothing e, over the A classes that `where` allows
 *     loss = s (sum q_k (lse - z_k) / ln b + a lse^2)             base b, z_loss a, sample_weight s
 *     grad_k = s upstream ((p_k W - q_k) / ln b + 2 a lse p_k) / (T cosh^2(logit_k / c))
 *
 * The Hessian is s upstream W / (T^2 ln b) (diag(p) - p p^T); softcap and z_loss are not for it. Of the softmax
 * family only the temperature is looked at. */
typedef struct softxent_options {
    size_t size;              /* sizeof(softxent_options) */
    const void *class_weight; /* w: n_classes non-negative reals side by side; NULL: 1 */
    double label_smoothing;   /* e in [0, 1] */
    double temperature;       /* T in [2^-100, 2^100]; 0 stands for 1 */
    double softcap;           /* c in [2^-100, 2^100]; 0: none */
    double z_loss;            /* a >= 0 */
    double log_base;          /* ln b, of the base b of the logarithm; 0 stands for 1: nats */
} softxent_options;

/* What some of a sample's classes say of it. Zero n_max and row_max = -INFINITY say nothing: `label_logit` is then NAN.
 */
typedef struct softxent_part_f32 {
    float row_max;     /* the largest logit */
    float n_max;       /* how many classes have it */
    float sum_others;  /* sum exp((z - row_max) / T) over the other classes */
    float label_logit; /* NAN where the label's class is not among them */
} softxent_part_f32;

typedef struct softxent_part_f64 {
    double row_max, n_max, sum_others, label_logit;
} softxent_part_f64;

/* One block of samples. Zero the struct, set `size`, fill in what is needed; it grows as softxent_options does. The
 * pointers are to float in the _f32 functions and to double in the _f64 ones, unless a type beside them says
 * otherwise. */
typedef struct softxent_block {
    size_t size;                     /* sizeof(softxent_block) */
    const softxent_isa *isa;         /* NULL: selected anew in each call, which may be SOFTXENT_BAD_ISA */
    const softxent_options *options; /* NULL: none */
    ptrdiff_t n_samples, n_classes;

    const void *logits;
    ptrdiff_t logits_sample_stride, logits_class_stride;
    int logits_type; /* enum softxent_element_type, here and below */

    const void *labels; /* class indices; or NULL, and `target` is given */
    ptrdiff_t labels_stride;
    int label_type;       /* enum softxent_label_type */
    int use_ignore_index; /* if so, a sample labelled ignore_index has loss 0, gradient 0, whatever it holds */
    int64_t ignore_index;

    const void *target; /* a distribution over the classes for each sample */
    ptrdiff_t target_sample_stride, target_class_stride;
    int target_type;

    const unsigned char *where; /* 0 removes a class from its sample: p = 0, gradient 0, no smoothing mass */
    ptrdiff_t where_sample_stride, where_class_stride;

    const void *sample_weight; /* s: non-negative reals that multiply each sample's loss and gradient; NULL: 1 */
    ptrdiff_t sample_weight_stride;

    const void *direction; /* the v of a Jacobian's or Hessian's product */
    ptrdiff_t direction_sample_stride, direction_class_stride;
    int direction_type;

    void *loss; /* the loss of each sample; for logsumexp, that */
    ptrdiff_t loss_stride;
    int loss_type;

    void *out; /* the gradient, the softmax, the product; NULL for the loss alone */
    ptrdiff_t out_sample_stride, out_class_stride;
    ptrdiff_t out_row_stride; /* from one row of a Jacobian to the next */
    int out_type;
    int accumulate; /* the gradient is added to what `out` holds */

    void *hess; /* the diagonal of the Hessian, of `out`'s type, or NULL */
    ptrdiff_t hess_sample_stride, hess_class_stride;
    int hess_kind; /* enum softxent_hessian */

    double grad_scale;       /* multiplies every gradient, and the Hessian */
    const void *grad_output; /* and so does this, per sample, unless NULL. In float, products below 2^-85 lose digits;
                              * where one is above 2^24, probabilities count down to its reciprocal times 2^-126, or
                              * 2^-214, else down to 2^-150 */
    ptrdiff_t grad_output_stride;

    void *parts; /* a softxent_part_f32 or _f64 of each sample, side by side: for the three functions below */
    const void *other_parts; /* as many */
    ptrdiff_t first_class;   /* the logits are those of the classes first_class to first_class + n_classes - 1, */
    ptrdiff_t all_classes;   /* of so many; labels are numbers among all of them */

    int64_t *rank; /* how many classes come before the label's; NULL: not wanted */
    ptrdiff_t rank_stride;
    int64_t *top; /* the first class with the largest logit; NULL: not wanted */
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
    double *temperature_grad; /* the derivative of each loss with respect to its T; NULL: not wanted */
    ptrdiff_t temperature_grad_stride;
} softxent_block;

/* Loss of each sample into `loss` and, with `out`, its gradient with respect to the logits, times grad_scale and
 * grad_output: a grad_scale of 0 makes zeros. With `hess`, which needs `out`, the diagonal of its Hessian too.
 * Reads logits, and either labels or target; class_weight, sample_weight and `where` if given. SOFTXENT_BAD_ARGUMENT;
 * on SOFTXENT_BAD_LABEL *bad_sample (which may be NULL) is the index in the block of the first sample whose label is no
 * class, on SOFTXENT_BAD_TARGET of the first whose target has an entry that is negative or nan. */
SOFTXENT_API int softxent_cross_entropy_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_cross_entropy_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* The loss of each sample, to the bit as above, and from the same pass where its label stands: into `rank` how many
 * classes come before the label's, which have a larger logit, or an equal one and a smaller index; into `top` the first
 * class with the largest logit. A target's label is the first of its largest entries. Logits count as they are given:
 * no option changes their order. Of a sample's classes only those count that `where` allows, and a label that it
 * removes comes behind all of them. Both are -1 for a sample that is ignored, has a nan among the logits that count, or
 * has no class left; infinite logits have their rank like others. Neither `out` nor `hess` is looked at. Returns what
 * the loss does. */
SOFTXENT_API int softxent_cross_entropy_and_rank_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_cross_entropy_and_rank_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* The Hessian of each sample's loss times its `direction`, into `out`. Reads and returns what the loss does. */
SOFTXENT_API int softxent_cross_entropy_hvp_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_cross_entropy_hvp_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* p, log p (in nats), or log sum exp z of each sample; the first two into `out`, the last into `loss`. With a logit of
 * +inf and none that is nan p and log p are nan, and log sum exp z is +inf. Reads logits
 * and, if given, `where`; what a block says of labels, targets and gradients is not looked at, nor are the options but
 * the temperature. SOFTXENT_BAD_ARGUMENT. */
SOFTXENT_API int softxent_softmax_f32(const softxent_block *block);
SOFTXENT_API int softxent_softmax_f64(const softxent_block *block);
SOFTXENT_API int softxent_log_softmax_f32(const softxent_block *block);
SOFTXENT_API int softxent_log_softmax_f64(const softxent_block *block);
SOFTXENT_API int softxent_logsumexp_f32(const softxent_block *block);
SOFTXENT_API int softxent_logsumexp_f64(const softxent_block *block);

/* The entropy H = -sum p log p of each sample, in nats, into `loss`; and with `out` its gradient with respect to the
 * logits, dH/dz_k = -p_k (log p_k + H) / T, times grad_scale and grad_output. sample_weight, if given, multiplies both.
 * Reads logits and, if given, `where`; of the options only the temperature. SOFTXENT_BAD_ARGUMENT. */
SOFTXENT_API int softxent_entropy_f32(const softxent_block *block);
SOFTXENT_API int softxent_entropy_f64(const softxent_block *block);

/* The Kullback-Leibler divergence of each sample's target t from p, into `loss`, in nats:
 *
 *     sum t (log t - log p) + 1 - sum t,   p = softmax(z / T)
 *
 * over the classes that `where` allows. It is 0 or more; the last two terms vanish where t sums to 1. With `out` its
 * gradient (p sum t - t) / T with respect to the logits, times grad_scale and grad_output; sample_weight, if given,
 * multiplies both. t is the target, or with target_holds_logits softmax(target / T). Reads logits and target; of the
 * options only the temperature. SOFTXENT_BAD_ARGUMENT; SOFTXENT_BAD_TARGET as above, for a target that holds no
 * logits. */
SOFTXENT_API int softxent_kl_divergence_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_kl_divergence_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* J v of each sample, with J = diag(p) - p p^T and v its `direction`, into `out`. J is symmetric: it is J^T v too. Of
 * the block only logits, direction and out are looked at: no option, and no `where`. SOFTXENT_BAD_ARGUMENT. */
SOFTXENT_API int softxent_softmax_jvp_f32(const softxent_block *block);
SOFTXENT_API int softxent_softmax_jvp_f64(const softxent_block *block);

/* J itself into `out`, n_classes^2 entries a sample: (i, j) lies i out_row_stride + j out_class_stride from the first.
 * `out` cannot be the logits. SOFTXENT_BAD_ARGUMENT. */
SOFTXENT_API int softxent_softmax_jacobian_f32(const softxent_block *block);
SOFTXENT_API int softxent_softmax_jacobian_f64(const softxent_block *block);

/* Where no block holds all classes: a stream of them, or shards on several machines.
 *
 * `begin` says into `parts` what the block's classes say of each sample; `merge` puts `other_parts`, of other classes,
 * into `parts`; and `finish`, from the parts of all classes, writes the loss into `loss`, the gradient for the block's
 * classes into `out`, or both: what is NULL is left out, and without `out` so are logits. Labels are class indices, of
 * any class. The same options go into all three: temperature, softcap, and for `finish` z_loss and log_base; class
 * weights and smoothing are refused: a class weight is a sample's weight, by its label. Targets are refused too. A
 * result differs from that of one block of all classes by roundings. SOFTXENT_BAD_ARGUMENT; SOFTXENT_BAD_LABEL, as
 * above, for a label outside [0, all_classes). */
SOFTXENT_API int softxent_begin_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_begin_f64(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_merge_f32(const softxent_block *block);
SOFTXENT_API int softxent_merge_f64(const softxent_block *block);
SOFTXENT_API int softxent_finish_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_finish_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* Reads the labels alone: *n_counted is the number that are not ignored. On SOFTXENT_BAD_LABEL, *bad_sample is the
 * first that is no class. For a caller that wants to know before anything is written. Both pointers may be NULL. In a
 * block with `parts`, here and below, labels are among all_classes. SOFTXENT_BAD_ARGUMENT. */
SOFTXENT_API int softxent_check_labels(const softxent_block *block, ptrdiff_t *n_counted, ptrdiff_t *bad_sample);

/* Reads the targets alone. On SOFTXENT_BAD_TARGET, *bad_sample (which may be NULL) is the first sample that has an
 * entry which is negative or nan. For a caller that wants to know before anything is written.
 * SOFTXENT_BAD_ARGUMENT. */
SOFTXENT_API int softxent_check_target_f32(const softxent_block *block, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_check_target_f64(const softxent_block *block, ptrdiff_t *bad_sample);

/* Reads the labels and the weights: *total is the sum of s_n w_y over the samples that are not ignored, or of s_n where
 * there are targets: what a mean divides by. SOFTXENT_BAD_LABEL as above; SOFTXENT_BAD_ARGUMENT. */
SOFTXENT_API int softxent_total_weight_f32(const softxent_block *block, double *total, ptrdiff_t *bad_sample);
SOFTXENT_API int softxent_total_weight_f64(const softxent_block *block, double *total, ptrdiff_t *bad_sample);

#ifdef __cplusplus
}
#endif

#endif
