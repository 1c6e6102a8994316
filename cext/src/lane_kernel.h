/* lane_kernel.h - template: LANES samples at a time, one per lane. For few classes, and for every layout whose class
 * axis is not contiguous.
 *
 * The logits come in tiles of up to TILE classes: vector c of a tile holds class c of every sample. The samples of a
 * problem of up to TILE classes are loaded once and stay; with more classes each sweep loads its tiles again, and the
 * exps wait in the output. */

/* LANES samples, and what is found out about them. */
typedef struct {
    const softxent_block *b;
    const T(call) * call;
    T(known) known; /* of those that do not count the logits are taken for zeros */
    T(view) logits, out;
    vec *tile;    /* TILE vectors */
    int resident; /* the tile holds all classes */
    vec label_logit, log_sum, lse;
    T(shift) shift;
    int near; /* shift.base is 0 in every lane */
    T(stats) stats;
    T(factors) factors;
    vec at_label;
} T(group);

/* So many groups go through a sweep after each other: their chains of operations are long, and overlap. */
#ifndef SOFTXENT_GROUPS
#  define SOFTXENT_GROUPS
enum { GROUPS_AT_ONCE = 4, MOST_GROUPS = 8 }; /* more where samples lie side by side: longer runs of each class */
#endif

SIMD_INLINE int T(classes_from)(const T(group) * g, ptrdiff_t from)
{
    const ptrdiff_t left = g->b->n_classes - from;
    return (int)(left < TILE ? left : TILE);
}

SIMD_INLINE void T(load_logits)(const T(group) * g, vec *tile, ptrdiff_t from)
{
    const int classes = T(classes_from)(g, from);
    K(load_reals)(tile, &g->logits, from, classes, 0);
    for (int c = 0; c < classes && !g->known.all_counted; ++c) tile[c] = T(if_counted)(&g->known, tile[c]);
}

/* The logits at the labels. */
SIMD_INLINE vec T(look_up_lanes)(const T(group) * g)
{
    real lanes[LANES] = {0};
    const real *first = (const real *)(const void *)g->logits.data;
    for (int i = 0; i < g->known.n_samples; ++i)
        if (g->known.label[i] >= 0)
            lanes[i] = first[i * g->logits.lane_stride + (ptrdiff_t)g->known.label[i] * g->logits.vector_stride];
    return V(load)(lanes);
}

/* First sweep: the maximum; and where the tile is resident the logits at the labels, which costs less than to look each
 * of them up. A resident tile holds the logits afterwards. */
SIMD_INLINE void T(lane_max)(T(group) * g, const softxent_op op)
{
    vec vmax = V(set1)(-(real)INFINITY), class = V(set1)(0), label_logit = class;
    const vec label = g->known.label_lane;
    const vec *tile = g->tile;
    for (ptrdiff_t from = 0; from < g->b->n_classes; from += TILE) {
        const int classes = T(classes_from)(g, from);
        if (!g->resident) T(load_logits)(g, g->tile, from);
        if (g->resident && op == OP_CROSS_ENTROPY) {
            for (int c = 0; c < classes; ++c, class = V(add)(class, V(set1)(1))) {
                label_logit = V(select)(V(eq)(label, class), tile[c], label_logit);
                vmax = V(max)(tile[c], vmax);
            }
        } else {
            for (int c = 0; c < classes; ++c) vmax = V(max)(tile[c], vmax);
        }
    }
    g->stats.row_max = vmax, g->label_logit = label_logit;
    if (!g->resident && op == OP_CROSS_ENTROPY) g->label_logit = T(look_up_lanes)(g);
}

/* Second sweep: sums. The exps stay in a resident tile, or wait in the output if `keep` says so. */
SIMD_INLINE void T(lane_terms)(const T(group) * g, vec *tile, int classes, const int near, vec *ties,
                               T(compensated) * others)
{
    const T(shift) shift = g->shift; /* copies: what is stored in the tile might be these, for all a compiler knows */
    const vec row_max = g->stats.row_max;
    T(compensated) sum = *others;
    vec n_ties = *ties;
    int c = 0;
    for (; c + 4 <= classes; c += 4) {
        vec four = V(set1)(0);
        UNROLL
        for (int i = c; i < c + 4; ++i) tile[i] = T(term)(tile[i], row_max, shift, near, &four, &n_ties);
        T(accumulate)(&sum, four);
    }
    vec last = V(set1)(0);
    for (; c < classes; ++c) tile[c] = T(term)(tile[c], row_max, shift, near, &last, &n_ties);
    T(accumulate)(&sum, last);
    *others = sum, *ties = n_ties;
}

SIMD_INLINE T(stats) T(lane_stats)(const T(group) * g, vec *tile, int keep, softxent_op op)
{
    T(compensated) others = T(zero)();
    vec ties = V(set1)(0);
    for (ptrdiff_t from = 0; from < g->b->n_classes; from += TILE) {
        const int classes = T(classes_from)(g, from);
        if (!g->resident) T(load_logits)(g, tile, from);
        if (g->near)
            T(lane_terms)(g, tile, classes, 1, &ties, &others);
        else
            T(lane_terms)(g, tile, classes, 0, &ties, &others);
        if (keep && !g->resident) K(store_reals)(tile, &g->out, from, classes);
    }
    return T(stats_of)(g->stats.row_max, g->shift.top, ties, V(sub)(others.sum, others.carry), op);
}

/* Third sweep: out (+)= exp(z) scale. In a resident tile the entries at the labels are put in their places. */
SIMD_INLINE void T(lane_write)(const T(group) * g, int kept, const softxent_op op)
{
    vec *tile = g->tile, class = V(set1)(0);
    const vec scale = g->factors.scale, least = g->factors.least, one = V(set1)(1);
    const vec label = g->known.label_lane, at_label = g->at_label;
    for (ptrdiff_t from = 0; from < g->b->n_classes; from += TILE) {
        const int classes = T(classes_from)(g, from);
        if (!g->resident && kept) K(load_reals)(tile, &g->out, from, classes, 0);
        if (!g->resident && !kept) {
            T(load_logits)(g, tile, from);
            for (int c = 0; c < classes; ++c) tile[c] = T(exp_shifted)(tile[c], g->shift, 0);
        }
        if (op == OP_SOFTMAX) {
            for (int c = 0; c < classes; ++c) tile[c] = T(probability)(tile[c], g->shift.top, g->factors);
        } else if (g->resident) {
            for (int c = 0; c < classes; ++c, class = V(add)(class, one)) {
                const vec entry = T(scaled)(tile[c], scale, least);
                tile[c] = V(select)(V(eq)(label, class), at_label, entry);
            }
        } else {
            for (int c = 0; c < classes; ++c) tile[c] = T(scaled)(tile[c], scale, least);
        }
        if (g->b->accumulate) {
            vec before[TILE];
            K(load_reals)(before, &g->out, from, classes, 0);
            for (int c = 0; c < classes; ++c) tile[c] = V(add)(tile[c], before[c]);
        }
        if (!g->resident) K(store_reals)(tile, &g->out, from, classes);
    }
}

/* Third sweep of log_softmax: (z - m) - log S. In a resident tile there are exps by now. */
SIMD_INLINE void T(lane_write_log)(const T(group) * g, vec log_sum)
{
    for (ptrdiff_t from = 0; from < g->b->n_classes; from += TILE) {
        const int classes = T(classes_from)(g, from);
        T(load_logits)(g, g->tile, from);
        for (int c = 0; c < classes; ++c) g->tile[c] = V(sub)(V(sub)(g->tile[c], g->stats.row_max), log_sum);
        if (!g->resident) K(store_reals)(g->tile, &g->out, from, classes);
    }
}

/* Writes a gradient. Where the tile is not resident the entries at the labels are written over it. */
SIMD_INLINE void T(lane_write_gradient)(const T(group) * g)
{
    real entries[LANES], *out = (real *)(void *)g->out.data;
    const ptrdiff_t sample_stride = g->out.lane_stride, class_stride = g->out.vector_stride;
    const int n_entries = g->resident ? 0 : g->known.n_samples;
    if (n_entries) V(store)(entries, g->at_label);
    for (int i = 0; i < n_entries && g->b->accumulate; ++i)
        if (g->known.label[i] >= 0) entries[i] += out[i * sample_stride + (ptrdiff_t)g->known.label[i] * class_stride];
    T(lane_write)(g, !g->b->accumulate, OP_CROSS_ENTROPY);
    for (int i = 0; i < n_entries; ++i)
        if (g->known.label[i] >= 0) out[i * sample_stride + (ptrdiff_t)g->known.label[i] * class_stride] = entries[i];
}

/* A value of each sample into `loss`. */
SIMD_INLINE void T(lane_losses)(const T(group) * g, vec value)
{
    char *first = (char *)((real *)g->b->loss + g->known.begin * g->b->loss_stride);
    T(scatter)(first, SOFTXENT_REAL, g->b->loss_stride, g->known.n_samples, value);
}

/* Whether all groups are whole, and their samples lie side by side in memory. Then they take turns class by class, as
 * what belongs to one class is together and the next class may be far. */
SIMD_INLINE int T(are_beside)(const T(group) * groups, int n_groups, ptrdiff_t sample_stride)
{
    return sample_stride == 1 && groups[n_groups - 1].known.n_samples == LANES;
}

/* The resident tiles. The lines that the output and the next groups need are asked for on the way. */
SIMD_INLINE void T(load_groups)(const T(group) * groups, int n_groups)
{
    const ptrdiff_t stride = groups->b->logits_class_stride;
    const real *first = (const real *)(const void *)groups->logits.data;
    if (!T(are_beside)(groups, n_groups, groups->b->logits_sample_stride)) {
        for (int i = 0; i < n_groups; ++i) T(load_logits)(&groups[i], groups[i].tile, 0);
        return;
    }
    const real *out = (const real *)(const void *)groups->out.data;
    const int will_write = out && groups->b->out_sample_stride == 1;
    for (ptrdiff_t c = 0; c < groups->b->n_classes; ++c)
        for (int i = 0; i < n_groups; ++i) {
            if (will_write) PREFETCH_TO_WRITE(out + c * groups->b->out_class_stride + i * LANES);
            PREFETCH(first + c * stride + (i + n_groups) * LANES);
            groups[i].tile[c] = T(if_counted)(&groups[i].known, V(load)(first + c * stride + i * LANES));
        }
}

SIMD_INLINE void T(store_groups)(const T(group) * groups, int n_groups)
{
    const ptrdiff_t stride = groups->b->out_class_stride;
    real *first = (real *)(void *)groups->out.data;
    if (!T(are_beside)(groups, n_groups, groups->b->out_sample_stride)) {
        for (int i = 0; i < n_groups; ++i) K(store_reals)(groups[i].tile, &groups[i].out, 0, (int)groups->b->n_classes);
        return;
    }
    for (ptrdiff_t c = 0; c < groups->b->n_classes; ++c)
        for (int i = 0; i < n_groups; ++i) V(store)(first + c * stride + i * LANES, groups[i].tile[c]);
}

/* The first sweep of a group, and the second. */
SIMD_INLINE void T(lane_begin)(T(group) * g, const softxent_op op)
{
    T(lane_max)(g, op);
    g->shift = T(shift_of)(g->stats.row_max);
    g->near = !V(any)(V(lt)(V(set1)(0), T(size_of)(g->shift.base)));
}

SIMD_INLINE void T(lane_sum)(T(group) * g, const softxent_op op)
{
    const int keep = op == OP_CROSS_ENTROPY ? g->b->out && !g->b->accumulate : op == OP_SOFTMAX;
    g->stats = T(lane_stats)(g, g->tile, keep, op);
}

/* What is between the sweeps: logarithms and divisions. */
SIMD_INLINE void T(lane_finish)(T(group) * g, const softxent_op op)
{
    const T(known) *k = &g->known;
    g->log_sum = T(log_sum)(g->stats), g->lse = V(add)(g->log_sum, g->stats.row_max);
    if (op == OP_LOGSUMEXP) {
        T(lane_losses)(g, g->lse);
    } else if (op == OP_CROSS_ENTROPY) {
        const vec cost = T(cost)(g->label_logit, k->label_q, g->stats.row_max);
        T(lane_losses)(g, T(loss_of)(g->call, k, k->label_q, g->log_sum, cost, g->lse));
        g->factors = T(gradient_factors)(g->call, k, g->stats, k->label_q, g->lse);
        g->at_label = T(gradient_at_label)(g->call, k, g->stats, g->label_logit, g->shift, g->lse);
    } else {
        g->factors = T(softmax_factors)(g->stats);
    }
}

SIMD_INLINE void T(lane_end)(const T(group) * g, const softxent_op op)
{
    if (op == OP_LOG_SOFTMAX)
        T(lane_write_log)(g, g->log_sum);
    else if (op == OP_SOFTMAX)
        T(lane_write)(g, 1, op);
    else
        T(lane_write_gradient)(g);
}

SIMD_INLINE void T(start_lanes)(T(group) * g, T(labels) * labels, const T(call) * call, ptrdiff_t begin, int lanes)
{
    const softxent_block *b = call->b;
    T(know)(&g->known, labels, call, begin, lanes, 0);
    const int n = g->known.n_samples;
    const real *logits = (const real *)b->logits + begin * b->logits_sample_stride;
    real *out = b->out ? (real *)b->out + begin * b->out_sample_stride : NULL;
    g->b = b, g->call = call, g->resident = b->n_classes <= TILE;
    g->logits = T(lanes_view)(logits, SOFTXENT_REAL, b->logits_sample_stride, b->logits_class_stride, n);
    g->out = T(lanes_view)(out, SOFTXENT_REAL, b->out_sample_stride, b->out_class_stride, n);
}

/* Asks for what a later group will read, or write, if it is all of a range of memory. */
SIMD_INLINE void T(prefetch_lanes)(const char *p, ptrdiff_t sample_stride, ptrdiff_t class_stride, ptrdiff_t n_classes,
                                   const int to_write)
{
    const ptrdiff_t bytes = LANES * n_classes * (ptrdiff_t)sizeof(real);
    const char *next = p + GROUPS_AT_ONCE * bytes;
    if (class_stride != 1 || sample_stride != n_classes) return;
    UNROLL_4
    for (ptrdiff_t k = 0; k < bytes; k += CACHE_LINE) {
        if (to_write)
            PREFETCH_TO_WRITE(next + k);
        else
            PREFETCH(next + k);
    }
}

SIMD_INLINE ptrdiff_t T(lane_block)(const softxent_block *b, const softxent_op op)
{
    const T(call) call = T(call_of)(b);
    const int has_output = b->out && op != OP_LOGSUMEXP;
    const int at_once = b->n_classes > TILE ? 1 : b->logits_sample_stride == 1 ? MOST_GROUPS : GROUPS_AT_ONCE;
    vec tiles[MOST_GROUPS][TILE];
    T(group) groups[MOST_GROUPS];
    T(labels) labels;
    T(no_labels)(&labels);
    for (ptrdiff_t begin = 0; begin < b->n_samples;) {
        int n_groups = 0, is_short = 0;
        for (; n_groups < at_once && begin < b->n_samples && !is_short; ++n_groups) {
            const int lanes = (int)(b->n_samples - begin < LANES ? b->n_samples - begin : LANES);
            groups[n_groups].tile = tiles[n_groups];
            T(start_lanes)(&groups[n_groups], &labels, &call, begin, lanes);
            T(prefetch_lanes)(groups[n_groups].logits.data, b->logits_sample_stride, b->logits_class_stride,
                              b->n_classes, 0);
            if (has_output)
                T(prefetch_lanes)(groups[n_groups].out.data, b->out_sample_stride, b->out_class_stride, b->n_classes,
                                  1);
            begin += groups[n_groups].known.n_samples;
            is_short = groups[n_groups].known.n_samples < lanes;
        }
        if (at_once > 1) T(load_groups)(groups, n_groups);
        for (int i = 0; i < n_groups; ++i) T(lane_begin)(&groups[i], op);
        for (int i = 0; i < n_groups; ++i) T(lane_sum)(&groups[i], op);
        for (int i = 0; i < n_groups; ++i) T(lane_finish)(&groups[i], op);
        for (int i = 0; i < n_groups && has_output; ++i) T(lane_end)(&groups[i], op);
        if (at_once > 1 && has_output) T(store_groups)(groups, n_groups);
        if (is_short) return begin;
    }
    return b->n_samples;
}

static ptrdiff_t K(lane_loss)(const softxent_block *b) { return T(lane_block)(b, OP_CROSS_ENTROPY); }

static ptrdiff_t K(lane_other)(const softxent_block *b, softxent_op op) { return T(lane_block)(b, op); }

static ptrdiff_t K(lane_run)(const softxent_block *b, softxent_op op)
{
    return op == OP_CROSS_ENTROPY ? K(lane_loss)(b) : K(lane_other)(b, op);
}
