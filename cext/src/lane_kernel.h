/* lane_kernel.h - template: LANES samples at a time, one per lane. For few classes, and for every layout whose class
 * axis is not contiguous.
 *
 * The logits come in tiles of up to TILE classes: vector c of a tile holds class c of every sample. The samples of a
 * problem of up to TILE classes are loaded once and stay; with more classes each sweep loads its tiles again, and the
 * exps wait in the output. */

/* LANES samples and all that is known of them. */
typedef struct {
    const softxent_block *b;
    ptrdiff_t begin; /* the first sample */
    T(view) logits, out;
    ptrdiff_t label[LANES];
    vec label_logit, upstream;
    mask counted; /* not ignored; the others' logits are taken for zeros */
    int lanes, all_counted, resident;
} T(group);

SIMD_INLINE int T(classes_from)(const T(group) * g, ptrdiff_t from)
{
    const ptrdiff_t left = g->b->n_classes - from;
    return (int)(left < TILE ? left : TILE);
}

SIMD_INLINE void T(load_logits)(const T(group) * g, vec *tile, ptrdiff_t from)
{
    const int classes = T(classes_from)(g, from);
    K(load_reals)(tile, &g->logits, from, classes, 0);
    if (g->all_counted) return;
    for (int c = 0; c < classes; ++c) tile[c] = V(select)(g->counted, tile[c], V(set1)(0));
}

/* The upstream gradients of a group; 0 for a sample that does not count. */
SIMD_INLINE vec T(lane_upstream)(const T(group) * g, int lanes)
{
    real upstream[LANES] = {0};
    if (!g->b->grad_output) return V(select)(g->counted, V(set1)((real)g->b->grad_scale), V(set1)(0));
    for (int i = 0; i < lanes; ++i) upstream[i] = T(upstream)(g->b, g->begin + i);
    return V(select)(g->counted, V(load)(upstream), V(set1)(0));
}

/* The samples from `begin` on, up to `lanes`, but only to the first label that is no class: a shorter group. */
SIMD_INLINE void T(gather_group)(T(group) * g, const softxent_block *b, ptrdiff_t begin, int lanes, int has_labels)
{
    real label_logit[LANES] = {0}, counted[LANES] = {0};
    const real *logits = (const real *)b->logits + begin * b->logits_sample_stride;
    g->b = b, g->begin = begin, g->all_counted = 1, g->resident = b->n_classes <= TILE;
    for (int i = 0; i < lanes; ++i) {
        const ptrdiff_t y = has_labels ? label_class(b, begin + i) : 0;
        g->label[i] = y;
        if (y == LABEL_BAD) {
            lanes = i;
        } else if (y == LABEL_IGNORED) {
            g->all_counted = 0;
        } else {
            counted[i] = 1;
            if (has_labels) label_logit[i] = logits[i * b->logits_sample_stride + y * b->logits_class_stride];
        }
    }
    g->counted = V(eq)(V(load)(counted), V(set1)(1));
    g->label_logit = V(load)(label_logit), g->upstream = T(lane_upstream)(g, lanes);
    g->lanes = lanes;
    g->logits = T(lanes_view)(logits, SOFTXENT_REAL, b->logits_sample_stride, b->logits_class_stride, lanes);
    real *out = b->out ? (real *)b->out + begin * b->out_sample_stride : NULL;
    g->out = T(lanes_view)(out, SOFTXENT_REAL, b->out_sample_stride, b->out_class_stride, lanes);
}

/* First sweep. A resident tile holds the logits afterwards. */
SIMD_INLINE vec T(lane_max)(const T(group) * g, vec *tile)
{
    vec vmax = V(set1)(-(real)INFINITY);
    for (ptrdiff_t from = 0; from < g->b->n_classes; from += TILE) {
        const int classes = T(classes_from)(g, from);
        T(load_logits)(g, tile, from);
        for (int c = 0; c < classes; ++c) vmax = V(max)(tile[c], vmax);
    }
    return vmax;
}

/* Second sweep: sums. The exps stay in a resident tile, or wait in the output if `keep` says so. */
SIMD_INLINE T(stats) T(lane_stats)(const T(group) * g, vec *tile, vec row_max, T(shift) shift, int keep, softxent_op op)
{
    T(compensated) others = T(zero)();
    vec ties = V(set1)(0);
    for (ptrdiff_t from = 0; from < g->b->n_classes; from += TILE) {
        const int classes = T(classes_from)(g, from);
        if (!g->resident) T(load_logits)(g, tile, from);
        for (int c = 0; c < classes; c += 4) {
            vec four = V(set1)(0);
            if (c + 4 <= classes) {
                UNROLL
                for (int i = c; i < c + 4; ++i) tile[i] = T(term)(tile[i], row_max, shift, &four, &ties);
            } else {
                for (int i = c; i < classes; ++i) tile[i] = T(term)(tile[i], row_max, shift, &four, &ties);
            }
            T(accumulate)(&others, four);
        }
        if (keep && !g->resident) K(store_reals)(tile, &g->out, from, classes);
    }
    return T(stats_of)(row_max, ties, V(sub)(others.sum, others.carry), op);
}

/* Third sweep: out (+)= exp(z) scale. */
SIMD_INLINE void T(lane_write)(const T(group) * g, vec *tile, T(shift) shift, int kept, vec scale)
{
    const vec least = T(least_scaled)(scale);
    for (ptrdiff_t from = 0; from < g->b->n_classes; from += TILE) {
        const int classes = T(classes_from)(g, from);
        if (!g->resident && kept) K(load_reals)(tile, &g->out, from, classes, 0);
        if (!g->resident && !kept) {
            T(load_logits)(g, tile, from);
            for (int c = 0; c < classes; ++c) tile[c] = T(exp_shifted)(tile[c], shift);
        }
        for (int c = 0; c < classes; ++c) tile[c] = T(scaled)(tile[c], scale, least);
        if (g->b->accumulate) {
            vec before[TILE];
            K(load_reals)(before, &g->out, from, classes, 0);
            for (int c = 0; c < classes; ++c) tile[c] = V(add)(tile[c], before[c]);
        }
        K(store_reals)(tile, &g->out, from, classes);
    }
}

/* Third sweep of log_softmax: (z - m) - log S. */
SIMD_INLINE void T(lane_write_log)(const T(group) * g, vec *tile, vec row_max, vec log_sum)
{
    for (ptrdiff_t from = 0; from < g->b->n_classes; from += TILE) {
        const int classes = T(classes_from)(g, from);
        T(load_logits)(g, tile, from);
        for (int c = 0; c < classes; ++c) tile[c] = V(sub)(V(sub)(tile[c], row_max), log_sum);
        K(store_reals)(tile, &g->out, from, classes);
    }
}

SIMD_INLINE void T(write_lanes)(const T(group) * g, vec value)
{
    real lanes[LANES];
    V(store)(lanes, value);
    real *loss = (real *)g->b->loss + g->begin * g->b->loss_stride;
    for (int i = 0; i < g->lanes; ++i) loss[i * g->b->loss_stride] = lanes[i];
}

/* Writes a gradient, and then the entries at the labels over it. */
SIMD_INLINE void T(lane_write_index)(const T(group) * g, vec *tile, T(shift) shift, int keep, T(stats) s)
{
    real at_label[LANES], *out = (real *)(void *)g->out.data;
    V(store)(at_label, T(label_gradient)(s, g->label_logit, shift, g->upstream));
    const ptrdiff_t sample_stride = g->out.lane_stride, class_stride = g->out.vector_stride;
    for (int i = 0; i < g->lanes && g->b->accumulate; ++i)
        if (g->label[i] >= 0) at_label[i] += out[i * sample_stride + g->label[i] * class_stride];
    T(lane_write)(g, tile, shift, keep, V(div)(g->upstream, T(sum_exp)(s)));
    for (int i = 0; i < g->lanes; ++i)
        if (g->label[i] >= 0) out[i * sample_stride + g->label[i] * class_stride] = at_label[i];
}

/* One group of cross-entropy with class indices. */
static void K(lane_index)(const T(group) * g)
{
    vec tile[TILE];
    const vec row_max = T(lane_max)(g, tile);
    const T(shift) shift = T(shift_of)(row_max);
    const int keep = g->b->out && !g->b->accumulate;
    const T(stats) s = T(lane_stats)(g, tile, row_max, shift, keep, OP_CROSS_ENTROPY);
    const vec loss = V(add)(T(log_sum)(s), V(sub)(row_max, g->label_logit));
    T(write_lanes)(g, V(select)(g->counted, loss, V(set1)(0)));
    if (g->b->out) T(lane_write_index)(g, tile, shift, keep, s);
}

/* One group of the softmax family. */
static void K(lane_softmax)(const T(group) * g, softxent_op op)
{
    vec tile[TILE];
    const vec row_max = T(lane_max)(g, tile), one = V(set1)(1);
    const T(shift) shift = T(shift_of)(row_max);
    const int keep = op == OP_SOFTMAX;
    const T(stats) s = T(lane_stats)(g, tile, row_max, shift, keep, op);
    if (op == OP_LOGSUMEXP) {
        T(write_lanes)(g, V(add)(T(log_sum)(s), row_max));
    } else if (op == OP_LOG_SOFTMAX) {
        T(lane_write_log)(g, tile, row_max, T(log_sum)(s));
    } else {
        T(lane_write)(g, tile, shift, keep, V(div)(one, T(sum_exp)(s)));
    }
}

static ptrdiff_t K(lane_run)(const softxent_block *b, softxent_op op)
{
    const int has_labels = op == OP_CROSS_ENTROPY && b->labels;
    for (ptrdiff_t begin = 0; begin < b->n_samples; begin += LANES) {
        const int lanes = (int)(b->n_samples - begin < LANES ? b->n_samples - begin : LANES);
        T(group) g;
        T(gather_group)(&g, b, begin, lanes, has_labels);
        if (has_labels)
            K(lane_index)(&g);
        else
            K(lane_softmax)(&g, op);
        if (g.lanes < lanes) return begin + g.lanes;
    }
    return b->n_samples;
}
