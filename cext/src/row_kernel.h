/* row_kernel.h - template: one sample at a time, its classes in vector lanes. The class axis of the logits is
 * contiguous; outputs may have any strides.
 *
 * Three sweeps over a row that stays in cache: maximum; exp, summed and, where there is an output, stored into it;
 * scaling. An output that cannot hold the exps (strided, or accumulated into) has them computed again instead. The
 * losses of LANES rows wait for each other, and their logarithms are taken at once. */

/* How the third sweep finds the exps. */
#ifndef SOFTXENT_ROW_KERNEL_MODES
#  define SOFTXENT_ROW_KERNEL_MODES
enum { NO_OUTPUT, STORED, RECOMPUTED };
#endif

/* Logs that LANES rows are waiting for: loss = offset + log S. */
typedef struct {
    real ties[LANES], others[LANES], offset[LANES];
} T(pending);

SIMD_INLINE void T(pend)(T(pending) * p, int row, T(stats) s, vec offset)
{
    p->ties[row] = V(first)(s.ties);
    p->others[row] = V(first)(s.others);
    p->offset[row] = V(first)(offset);
}

/* A row that has no part in it: loss 0. */
SIMD_INLINE void T(pend_nothing)(T(pending) * p, int row)
{
    const vec zero = V(set1)(0), one = V(set1)(1);
    const T(stats) s = {zero, one, zero};
    T(pend)(p, row, s, zero);
}

SIMD_INLINE void T(write_losses)(const T(pending) * p, real *loss, ptrdiff_t stride, int rows)
{
    real value[LANES];
    const T(stats) s = {V(set1)(0), V(load)(p->ties), V(load)(p->others)};
    V(store)(value, V(add)(T(log_sum)(s), V(load)(p->offset)));
    for (int i = 0; i < rows; ++i) loss[i * stride] = value[i];
}

/* First sweep: the maximum. nan is passed over here; it shows up in the sum. */
SIMD_INLINE real T(row_max)(const real *z, ptrdiff_t n)
{
    const real lowest = -(real)INFINITY;
    vec vmax[4] = {V(set1)(lowest), V(set1)(lowest), V(set1)(lowest), V(set1)(lowest)};
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES) {
        UNROLL
        for (int i = 0; i < 4; ++i) vmax[i] = V(max)(V(load)(z + k + i * LANES), vmax[i]);
    }
    for (; k < n; k += LANES) vmax[0] = V(max)(V(load_till)(z + k, n - k, lowest), vmax[0]);
    return V(hmax)(V(max)(V(max)(vmax[0], vmax[1]), V(max)(vmax[2], vmax[3])));
}

/* Second sweep: the sum of the exps, which are stored if `exps` is given. Four vectors are added up before they
 * reach the compensated sum. */
SIMD_INLINE T(stats) T(row_stats)(const real *z, ptrdiff_t n, vec row_max, T(shift) shift, real *exps, softxent_op op)
{
    T(compensated) others = T(zero)();
    vec ties = V(set1)(0);
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES) {
        vec four = V(set1)(0);
        UNROLL
        for (int i = 0; i < 4; ++i) {
            const vec e = T(term)(V(load)(z + k + i * LANES), row_max, shift, &four, &ties);
            if (exps) V(store)(exps + k + i * LANES, e);
        }
        T(accumulate)(&others, four);
    }
    vec last = V(set1)(0);
    for (; k < n; k += LANES) {
        const vec e = T(term)(V(load_till)(z + k, n - k, -(real)INFINITY), row_max, shift, &last, &ties);
        if (exps) V(store_till)(exps + k, n - k, e);
    }
    T(accumulate)(&others, last);
    return T(stats_of)(row_max, V(set1)((real)V(hsum)(ties)), T(across)(others), op);
}

/* Third sweep, plain: the stored exps become probabilities or gradients. */
SIMD_INLINE void T(row_scale)(real *out, ptrdiff_t n, vec scale)
{
    const vec least = T(least_scaled)(scale);
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES) {
        UNROLL
        for (int i = 0; i < 4; ++i)
            V(store)(out + k + i * LANES, T(scaled)(V(load)(out + k + i * LANES), scale, least));
    }
    for (; k < n; k += LANES) V(store_till)(out + k, n - k, T(scaled)(V(load_till)(out + k, n - k, 0), scale, least));
}

SIMD_INLINE vec T(load_strided)(const real *p, ptrdiff_t stride, ptrdiff_t n)
{
    return stride == 1 ? V(load_till)(p, n, 0) : T(gather)((const char *)p, SOFTXENT_REAL, stride, n, 0);
}

SIMD_INLINE void T(store_strided)(real *p, ptrdiff_t stride, ptrdiff_t n, vec v)
{
    if (stride == 1)
        V(store_till)(p, n, v);
    else
        T(scatter)((char *)p, SOFTXENT_REAL, stride, n, v);
}

/* Third sweep, general: out (+)= exp(z) scale, for any strides. */
SIMD_INLINE void T(row_write)(const softxent_block *b, const real *z, T(shift) shift, vec scale, real *out)
{
    const ptrdiff_t n = b->n_classes, stride = b->out_class_stride;
    const vec least = T(least_scaled)(scale);
    for (ptrdiff_t k = 0; k < n; k += LANES) {
        vec g = T(scaled)(T(exp_shifted)(V(load_till)(z + k, n - k, -(real)INFINITY), shift), scale, least);
        if (b->accumulate) g = V(add)(g, T(load_strided)(out + k * stride, stride, n - k));
        T(store_strided)(out + k * stride, stride, n - k, g);
    }
}

/* Third sweep of log_softmax: (z - m) - log S. */
SIMD_INLINE void T(row_write_log)(const softxent_block *b, const real *z, vec row_max, vec log_sum, real *out)
{
    const ptrdiff_t n = b->n_classes, stride = b->out_class_stride;
    for (ptrdiff_t k = 0; k < n; k += LANES) {
        const vec x = V(sub)(V(load_till)(z + k, n - k, 0), row_max);
        T(store_strided)(out + k * stride, stride, n - k, V(sub)(x, log_sum));
    }
}

SIMD_INLINE void T(row_write_zeros)(const softxent_block *b, real *out)
{
    if (b->accumulate) return;
    for (ptrdiff_t k = 0; k < b->n_classes; ++k) out[k * b->out_class_stride] = 0;
}

/* One row of cross-entropy with a class index. */
SIMD_INLINE void T(row_index)(const softxent_block *b, int mode, ptrdiff_t sample, ptrdiff_t label, int row,
                              T(pending) * pending)
{
    const real *z = (const real *)b->logits + sample * b->logits_sample_stride;
    real *out = mode == NO_OUTPUT ? NULL : (real *)b->out + sample * b->out_sample_stride;
    const vec row_max = V(set1)(T(row_max)(z, b->n_classes));
    const T(shift) shift = T(shift_of)(row_max);
    const vec label_logit = V(set1)(z[label]);
    const T(stats) s = T(row_stats)(z, b->n_classes, row_max, shift, mode == STORED ? out : NULL, OP_CROSS_ENTROPY);
    T(pend)(pending, row, s, V(sub)(row_max, label_logit));
    if (mode == NO_OUTPUT) return;

    const vec upstream = V(set1)(T(upstream)(b, sample)), scale = V(div)(upstream, T(sum_exp)(s));
    const real at_label = V(first)(T(label_gradient)(s, label_logit, shift, upstream));
    real *label_out = out + label * b->out_class_stride;
    const real before = b->accumulate ? *label_out : 0;
    if (mode == STORED)
        T(row_scale)(out, b->n_classes, scale);
    else
        T(row_write)(b, z, shift, scale, out);
    *label_out = before + at_label;
}

/* One row of the softmax family. */
SIMD_INLINE void T(row_softmax)(const softxent_block *b, int mode, softxent_op op, ptrdiff_t sample, int row,
                                T(pending) * pending)
{
    const real *z = (const real *)b->logits + sample * b->logits_sample_stride;
    real *out = mode == NO_OUTPUT ? NULL : (real *)b->out + sample * b->out_sample_stride;
    const vec row_max = V(set1)(T(row_max)(z, b->n_classes)), one = V(set1)(1);
    const T(shift) shift = T(shift_of)(row_max);
    const int keep = op == OP_SOFTMAX && mode == STORED;
    const T(stats) s = T(row_stats)(z, b->n_classes, row_max, shift, keep ? out : NULL, op);
    if (op == OP_LOGSUMEXP) {
        T(pend)(pending, row, s, row_max);
    } else if (op == OP_LOG_SOFTMAX) {
        T(row_write_log)(b, z, row_max, T(log_sum)(s), out);
    } else {
        const vec scale = V(div)(one, T(sum_exp)(s));
        if (keep)
            T(row_scale)(out, b->n_classes, scale);
        else
            T(row_write)(b, z, shift, scale, out);
    }
}

/* A block of rows: LANES at a time, until the block or its good labels end. */
SIMD_INLINE ptrdiff_t T(row_block)(const softxent_block *b, softxent_op op, int mode, int has_labels)
{
    for (ptrdiff_t begin = 0; begin < b->n_samples; begin += LANES) {
        T(pending) pending = {{0}, {0}, {0}};
        const int rows = (int)(b->n_samples - begin < LANES ? b->n_samples - begin : LANES);
        int row = 0;
        for (; row < rows; ++row) {
            const ptrdiff_t sample = begin + row;
            const ptrdiff_t label = has_labels ? label_class(b, sample) : 0;
            if (label == LABEL_BAD) break;
            if (label == LABEL_IGNORED) {
                T(pend_nothing)(&pending, row);
                if (mode != NO_OUTPUT) T(row_write_zeros)(b, (real *)b->out + sample * b->out_sample_stride);
            } else if (has_labels) {
                T(row_index)(b, mode, sample, label, row, &pending);
            } else {
                T(row_softmax)(b, mode, op, sample, row, &pending);
            }
        }
        for (int i = row; i < LANES; ++i) T(pend_nothing)(&pending, i);
        if (op == OP_CROSS_ENTROPY || op == OP_LOGSUMEXP)
            T(write_losses)(&pending, (real *)b->loss + begin * b->loss_stride, b->loss_stride, row);
        if (row < rows) return begin + row;
    }
    return b->n_samples;
}

/* The plain calls get code of their own, the rest shares what is left. */
static ptrdiff_t K(row_loss)(const softxent_block *b) { return T(row_block)(b, OP_CROSS_ENTROPY, NO_OUTPUT, 1); }

static ptrdiff_t K(row_loss_grad)(const softxent_block *b) { return T(row_block)(b, OP_CROSS_ENTROPY, STORED, 1); }

static ptrdiff_t K(row_general)(const softxent_block *b, softxent_op op, int mode)
{
    return T(row_block)(b, op, mode, b->labels != NULL);
}

static ptrdiff_t K(row_run)(const softxent_block *b, softxent_op op)
{
    const int plain_out = b->out_class_stride == 1 && !b->accumulate;
    const int mode = !b->out || op == OP_LOGSUMEXP ? NO_OUTPUT : plain_out ? STORED : RECOMPUTED;
    if (op == OP_CROSS_ENTROPY && b->labels) {
        if (mode == NO_OUTPUT) return K(row_loss)(b);
        if (mode == STORED) return K(row_loss_grad)(b);
    }
    return K(row_general)(b, op, mode);
}
