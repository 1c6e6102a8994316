# cext.pxd - the C library for Cython: mirrors cext/include/softxent.h, where every name is explained.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t

cdef extern from "softxent.h" nogil:
    int SOFTXENT_OK, SOFTXENT_BAD_ARGUMENT, SOFTXENT_BAD_LABEL, SOFTXENT_BAD_ISA, SOFTXENT_BAD_TARGET

    int SOFTXENT_INT8, SOFTXENT_INT16, SOFTXENT_INT32, SOFTXENT_INT64
    int SOFTXENT_UINT8, SOFTXENT_UINT16, SOFTXENT_UINT32, SOFTXENT_UINT64

    int SOFTXENT_REAL, SOFTXENT_FLOAT16, SOFTXENT_BFLOAT16

    int SOFTXENT_EXACT, SOFTXENT_XGBOOST, SOFTXENT_LIGHTGBM

    const char *softxent_version()
    int softxent_abi_version()

    ctypedef struct softxent_isa:
        pass

    int softxent_isa_select(const char *name, const softxent_isa **isa)
    const char *softxent_isa_name(const softxent_isa *isa)
    const char *softxent_isa_usable(int i)
    const char *softxent_strerror(int status)

    ctypedef struct softxent_options:
        size_t size
        const void *class_weight
        double label_smoothing
        double temperature
        double softcap
        double z_loss
        double log_base

    ctypedef struct softxent_part_f32:
        float row_max, n_max, sum_others, label_logit

    ctypedef struct softxent_part_f64:
        double row_max, n_max, sum_others, label_logit

    ctypedef struct softxent_block:
        size_t size
        const softxent_isa *isa
        const softxent_options *options
        ptrdiff_t n_samples, n_classes
        const void *logits
        ptrdiff_t logits_sample_stride, logits_class_stride
        int logits_type
        const void *labels
        ptrdiff_t labels_stride
        int label_type
        int use_ignore_index
        int64_t ignore_index
        const void *target
        ptrdiff_t target_sample_stride, target_class_stride
        int target_type
        const unsigned char *where
        ptrdiff_t where_sample_stride, where_class_stride
        const void *sample_weight
        ptrdiff_t sample_weight_stride
        const void *direction
        ptrdiff_t direction_sample_stride, direction_class_stride
        int direction_type
        void *loss
        ptrdiff_t loss_stride
        int loss_type
        void *out
        ptrdiff_t out_sample_stride, out_class_stride, out_row_stride
        int out_type
        int accumulate
        void *hess
        ptrdiff_t hess_sample_stride, hess_class_stride
        int hess_kind
        double grad_scale
        const void *grad_output
        ptrdiff_t grad_output_stride
        void *parts
        const void *other_parts
        ptrdiff_t first_class
        ptrdiff_t all_classes
        int64_t *rank
        ptrdiff_t rank_stride
        int64_t *top
        ptrdiff_t top_stride
        int target_holds_logits
        const void *classes
        const void *masses
        ptrdiff_t n_masses
        ptrdiff_t masses_stride
        const double *temperatures
        ptrdiff_t temperatures_stride
        double *temperature_grad
        ptrdiff_t temperature_grad_stride

    int softxent_cross_entropy_f32(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_cross_entropy_f64(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_cross_entropy_and_rank_f32(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_cross_entropy_and_rank_f64(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_cross_entropy_hvp_f32(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_cross_entropy_hvp_f64(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_softmax_f32(const softxent_block *block)
    int softxent_softmax_f64(const softxent_block *block)
    int softxent_log_softmax_f32(const softxent_block *block)
    int softxent_log_softmax_f64(const softxent_block *block)
    int softxent_logsumexp_f32(const softxent_block *block)
    int softxent_logsumexp_f64(const softxent_block *block)
    int softxent_entropy_f32(const softxent_block *block)
    int softxent_entropy_f64(const softxent_block *block)
    int softxent_kl_divergence_f32(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_kl_divergence_f64(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_softmax_jvp_f32(const softxent_block *block)
    int softxent_softmax_jvp_f64(const softxent_block *block)
    int softxent_log_softmax_jvp_f32(const softxent_block *block)
    int softxent_log_softmax_jvp_f64(const softxent_block *block)
    int softxent_log_softmax_vjp_f32(const softxent_block *block)
    int softxent_log_softmax_vjp_f64(const softxent_block *block)
    int softxent_softmax_jacobian_f32(const softxent_block *block)
    int softxent_softmax_jacobian_f64(const softxent_block *block)
    int softxent_begin_f32(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_begin_f64(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_merge_f32(const softxent_block *block)
    int softxent_merge_f64(const softxent_block *block)
    int softxent_finish_f32(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_finish_f64(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_check_labels(const softxent_block *block, ptrdiff_t *n_counted, ptrdiff_t *bad_sample)
    int softxent_check_target_f32(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_check_target_f64(const softxent_block *block, ptrdiff_t *bad_sample)
    int softxent_total_weight_f32(const softxent_block *block, double *total, ptrdiff_t *bad_sample)
    int softxent_total_weight_f64(const softxent_block *block, double *total, ptrdiff_t *bad_sample)
