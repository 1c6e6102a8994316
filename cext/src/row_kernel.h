/* row_kernel.h - template: samples whose class axis is contiguous, each with its classes in vector lanes. Outputs may
 * have any strides, the logits half precision; targets, label smoothing and all weights are known here, the options
 * that change the logits themselves are not.
 *
 * Three sweeps over rows that stay in cache: maximum; exp, summed and, where the output can hold it, stored there;
 * scaling. As many rows as fit in the first-level cache go through a sweep together, and what lies between the
 * sweeps (sums across lanes, logarithms, divisions) is done for all of them at once, a row in each lane. */

/* What of a call is known when its kernel is compiled: how the third sweep finds the exps, the element type, and where
 * the target's density q lies. */
#ifndef SOFTXENT_ROW_KIND
#  define SOFTXENT_ROW_KIND
enum { NO_OUTPUT, STORED, RECOMPUTED };
enum { AT_LABEL, EVEN /* and the same everywhere else */, DENSE };
enum { ROW_BATCH_BYTES = 1 << 14, PREFETCHED_BYTES = 1 << 19 };
typedef struct {
    softxent_op op;
    int output, type, density;
    int small; /* no loops of their own for the rows that are near 0: for calls that are rare */
} row_kind;
#endif

/* How many rows go together: a matter of the number of classes alone, as it decides the order of sums. */
SIMD_INLINE int T(rows_at_once)(ptrdiff_t n_classes)
{
    const ptrdiff_t rows = ROW_BATCH_BYTES / (ptrdiff_t)sizeof(real) / n_classes;
    return (int)(rows < 1 ? 1 : rows > LANES ? LANES : rows);
}

/* Up to LANES rows, and what is found out about them, a row in each lane. */
typedef struct {
    const T(call) * call;
    int at_once;
    T(known) known;
    vec label_logit, label_weight, share; /* share: of the smoothing mass, for each class */
    T(shift) shift;
    T(stats) stats;
    vec log_sum, lse;
    vec dot, weight, others_q; /* sum q (m - z), sum q, and that without the maxima */
} T(batch);

/* ---- Rows and lanes ---------------------------------------------------------------------------------------------- */

SIMD_INLINE const char *T(logits_of)(const T(batch) * r, int row, int type)
{
    const softxent_block *b = r->call->b;
    return (const char *)b->logits + (r->known.begin + row) * b->logits_sample_stride * T(size_of_element)(type);
}

SIMD_INLINE char *T(out_of)(const T(batch) * r, int row, int type)
{
    const softxent_block *b = r->call->b;
    return (char *)b->out + (r->known.begin + row) * b->out_sample_stride * T(size_of_element)(type);
}

/* Whether there is anything to read in a row. */
SIMD_INLINE int T(has_part)(const T(batch) * r, int row)
{
    return row < r->known.n_samples && r->known.label[row] != LABEL_IGNORED;
}

/* A vector of a row of any strides; lanes beyond its n are 0, or stay unwritten. What is usual is inline. */
static vec K(load_strided)(const char *p, int type, ptrdiff_t stride, ptrdiff_t n)
{
    if (stride != 1) return T(gather)(p, type, stride, n, 0);
    return n >= LANES ? T(load_vector)(p, type) : T(load_vector_till)(p, type, n, 0);
}

static void K(store_strided)(char *p, int type, ptrdiff_t stride, ptrdiff_t n, vec v)
{
    if (stride == 1)
        T(store_vector_till)(p, type, n, v);
    else
        T(scatter)(p, type, stride, n, v);
}

SIMD_INLINE vec T(load_any)(const char *p, int type, ptrdiff_t stride, ptrdiff_t n)
{
    const int usual = stride == 1 && type == SOFTXENT_REAL && n >= LANES;
    return usual ? V(load)((const real *)(const void *)p) : K(load_strided)(p, type, stride, n);
}

SIMD_INLINE void T(store_any)(char *p, const int type, ptrdiff_t stride, ptrdiff_t n, vec v)
{
    if (stride == 1 && n >= LANES)
        T(store_vector)(p, type, v);
    else
        K(store_strided)(p, type, stride, n, v);
}

/* One vector of every row becomes one vector with a row in each lane: the largest of its lanes. */
static vec K(max_of_rows)(vec *rows, int at_once)
{
    if (at_once == 1) return V(set1)(V(hmax)(rows[0]));
    V(transpose)(rows);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) rows[i] = V(max)(rows[i], rows[i + width]);
    return rows[0];
}

/* The same for small whole numbers, whose sum is exact. */
static vec K(counts_of_rows)(vec *rows, int at_once)
{
    if (at_once == 1) return V(set1)((real)V(hsum)(rows[0]));
    V(transpose)(rows);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) rows[i] = V(add)(rows[i], rows[i + width]);
    return rows[0];
}

/* And for sums, whose rounding errors are kept (Knuth's two-sum) and taken off in the end. An infinite sum has
 * none: inf - inf. */
static vec K(sums_of_rows)(const T(compensated) * rows, int at_once)
{
    vec sum[LANES], carry[LANES];
    const vec zero = V(set1)(0);
    if (at_once == 1) return T(across)(rows[0]);
    for (int i = 0; i < LANES; ++i) {
        sum[i] = i < at_once ? rows[i].sum : zero;
        carry[i] = i < at_once ? rows[i].carry : zero;
    }
    V(transpose)(sum), V(transpose)(carry);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) {
            const vec a = sum[i], b = sum[i + width], s = V(add)(a, b), b_in_s = V(sub)(s, a);
            const vec error = V(add)(V(sub)(a, V(sub)(s, b_in_s)), V(sub)(b, b_in_s));
            sum[i] = s, carry[i] = V(sub)(V(add)(carry[i], carry[i + width]), error);
        }
    return V(sub)(sum[0], V(select)(V(eq)(carry[0], carry[0]), carry[0], zero));
}

/* ---- First sweep: the maximum ------------------------------------------------------------------------------------ */

/* Lane by lane. nan is passed over here; it shows up in the sum. */
SIMD_INLINE vec T(row_max)(const char *z, ptrdiff_t n, const int type)
{
    const ptrdiff_t size = T(size_of_element)(type);
    const real lowest = -(real)INFINITY;
    vec vmax[4] = {V(set1)(lowest), V(set1)(lowest), V(set1)(lowest), V(set1)(lowest)};
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES) {
        UNROLL
        for (int i = 0; i < 4; ++i) vmax[i] = V(max)(T(load_vector)(z + (k + i * LANES) * size, type), vmax[i]);
    }
    for (; k + LANES <= n; k += LANES) vmax[0] = V(max)(T(load_vector)(z + k * size, type), vmax[0]);
    if (k < n) vmax[1] = V(max)(T(load_vector_till)(z + k * size, type, n - k, lowest), vmax[1]);
    return V(max)(V(max)(vmax[0], vmax[1]), V(max)(vmax[2], vmax[3]));
}

SIMD_INLINE vec T(max_of_batch)(const T(batch) * r, const row_kind kind)
{
    vec rows[LANES];
    for (int i = 0; i < LANES; ++i)
        rows[i] = T(has_part)(r, i) ? T(row_max)(T(logits_of)(r, i, kind.type), r->call->b->n_classes, kind.type)
                                    : V(set1)(0);
    return K(max_of_rows)(rows, r->at_once);
}

/* ---- Second sweep: the sums -------------------------------------------------------------------------------------- */

/* Of a row, lane by lane. */
typedef struct {
    T(compensated) others, dot, top_q, others_q;
    vec ties;
} T(row_sums);

/* Of a few vectors, before they reach the compensated ones. */
typedef struct {
    vec others, dot, top_q, others_q;
} T(part_sums);

/* A row in the second or third sweep: what is the same for all its vectors. */
typedef struct {
    const T(call) * call;
    const char *z, *target, *next_z;
    char *out, *next_out;
    T(shift) shift;
    vec row_max, share, keep, log_sum, upstream, scale, least, confident_top, at_top;
} T(row);

SIMD_INLINE vec T(row_load)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, const int type, vec fill)
{
    const char *z = row->z + k * T(size_of_element)(type);
    return left >= LANES ? T(load_vector)(z, type) : T(load_vector_till)(z, type, left, V(first)(fill));
}

/* q, but for what the label adds. Beyond the last class it is 0. */
SIMD_INLINE vec T(density_at)(const T(row) * row, ptrdiff_t k, ptrdiff_t left)
{
    const softxent_block *b = row->call->b;
    const real *w = (const real *)row->call->o.class_weight;
    vec q = row->share;
    if (row->target) {
        const ptrdiff_t stride = b->target_class_stride;
        const char *target = row->target + k * stride * T(size_of_element)(b->target_type);
        q = V(fma)(T(load_any)(target, b->target_type, stride, left), row->keep, q);
    }
    if (w) q = V(mul)(q, T(load_any)((const char *)(w + k), SOFTXENT_REAL, 1, left));
    if (left >= LANES) return q;
    real lanes[LANES];
    V(store)(lanes, q);
    return V(load_till)(lanes, left, 0);
}

SIMD_INLINE void T(row_term)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, const row_kind kind, const int near,
                             T(part_sums) * part, vec *ties)
{
    const vec z = T(row_load)(row, k, left, kind.type, V(set1)(-(real)INFINITY)), m = row->row_max;
    const mask is_max = V(eq)(z, m);
    vec e = T(exp_shifted)(z, row->shift, near);
    T(count)(is_max, e, &part->others, ties);
    if (kind.density == EVEN) part->dot = V(add)(part->dot, V(sub)(m, T(row_load)(row, k, left, kind.type, m)));
    if (kind.density == DENSE) {
        const vec q = T(density_at)(row, k, left);
        part->dot = V(add_unless)(V(eq)(q, V(set1)(0)), part->dot, V(mul)(q, V(sub)(m, z)));
        part->top_q = V(add_where)(is_max, part->top_q, q);
        part->others_q = V(add_unless)(is_max, part->others_q, q);
    }
    if (kind.output != STORED) return;
    if (kind.density != AT_LABEL) e = V(select)(is_max, row->shift.top, e);
    real *out = (real *)(void *)row->out + k;
    left >= LANES ? V(store)(out, e) : V(store_till)(out, left, e);
}

/* With q > 0 where z is -inf the sum is infinite, and has no carry: inf - inf. */
SIMD_INLINE void T(add_part)(T(row_sums) * s, T(part_sums) part, const row_kind kind)
{
    T(accumulate)(&s->others, part.others);
    if (kind.density == AT_LABEL) return;
    T(accumulate)(&s->dot, part.dot);
    s->dot.carry = V(select)(V(eq)(s->dot.carry, s->dot.carry), s->dot.carry, V(set1)(0));
    if (kind.density == EVEN) return;
    T(accumulate)(&s->top_q, part.top_q);
    T(accumulate)(&s->others_q, part.others_q);
}

/* While the exps of these rows are computed the next ones come from memory: to the second-level cache, which holds both
 * if the rows are not too long for it. */
SIMD_INLINE void T(prefetch_next)(const T(row) * row, ptrdiff_t k, const row_kind kind)
{
    const ptrdiff_t size = T(size_of_element)(kind.type);
    if (kind.output != NO_OUTPUT && row->call->b->n_classes > PREFETCHED_BYTES / size) return;
    UNROLL
    for (ptrdiff_t line = 0; line < 4 * LANES * size; line += CACHE_LINE) {
        PREFETCH(row->next_z + k * size + line);
        if (kind.output == STORED) PREFETCH_TO_WRITE(row->next_out + k * size + line);
    }
}

/* Four vectors are added up before they reach the compensated sums. */
SIMD_INLINE T(row_sums) T(sum_row)(const T(row) * row, const row_kind kind, const int near)
{
    const vec zero = V(set1)(0);
    const T(part_sums) nothing = {zero, zero, zero, zero};
    const ptrdiff_t n = row->call->b->n_classes;
    T(row_sums) s = {T(zero)(), T(zero)(), T(zero)(), T(zero)(), zero};
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES) {
        T(part_sums) part = nothing;
        T(prefetch_next)(row, k, kind);
        UNROLL
        for (int j = 0; j < 4; ++j) T(row_term)(row, k + j * LANES, LANES, kind, near, &part, &s.ties);
        T(add_part)(&s, part, kind);
    }
    T(part_sums) last = nothing;
    for (; k + LANES <= n; k += LANES) T(row_term)(row, k, LANES, kind, near, &last, &s.ties);
    if (k < n) T(row_term)(row, k, n - k, kind, near, &last, &s.ties);
    T(add_part)(&s, last, kind);
    return s;
}

/* A vector's lanes, each to be spread over a vector of its own. */
typedef struct {
    real row_max[LANES], base[LANES], rounder[LANES], floor[LANES], top[LANES];
    real log_sum[LANES], scale[LANES], least[LANES], upstream[LANES], confident_top[LANES], at_top[LANES];
} T(spread);

SIMD_INLINE T(row) T(row_of)(const T(batch) * r, const T(spread) * lanes, int i, const row_kind kind)
{
    const softxent_block *b = r->call->b;
    T(row) row = {.call = r->call, .z = T(logits_of)(r, i, kind.type), .share = r->share};
    row.shift.base = V(set1)(lanes->base[i]), row.shift.rounder = V(set1)(lanes->rounder[i]);
    row.shift.floor = V(set1)(lanes->floor[i]), row.shift.top = V(set1)(lanes->top[i]);
    row.row_max = V(set1)(lanes->row_max[i]);
    row.next_z = T(logits_of)(r, i + r->at_once, kind.type);
    if (kind.output != NO_OUTPUT) row.next_out = T(out_of)(r, i + r->at_once, kind.type);
    row.keep = V(set1)((real)(1 - r->call->o.label_smoothing));
    const ptrdiff_t target_row = (r->known.begin + i) * b->target_sample_stride;
    if (b->target) row.target = (const char *)b->target + target_row * T(size_of_element)(b->target_type);
    if (kind.output != NO_OUTPUT) row.out = T(out_of)(r, i, kind.type);
    return row;
}

SIMD_INLINE void T(sum_batch)(T(batch) * r, T(spread) * lanes, const row_kind kind)
{
    T(compensated) others[LANES], dot[LANES], top_q[LANES], others_q[LANES];
    vec ties[LANES];
    const T(row_sums) nothing = {T(zero)(), T(zero)(), T(zero)(), T(zero)(), V(set1)(0)};
    for (int i = 0; i < r->at_once; ++i) {
        T(row_sums) s = nothing;
        if (T(has_part)(r, i)) {
            const T(row) row = T(row_of)(r, lanes, i, kind);
            s = lanes->base[i] == 0 && !kind.small ? T(sum_row)(&row, kind, 1) : T(sum_row)(&row, kind, 0);
        }
        others[i] = s.others, ties[i] = s.ties;
        dot[i] = s.dot, top_q[i] = s.top_q, others_q[i] = s.others_q;
    }
    for (int i = r->at_once; i < LANES; ++i) ties[i] = V(set1)(0);
    const vec one = V(set1)(1), zero = V(set1)(0);
    const vec n_ties = V(select)(r->known.counted, K(counts_of_rows)(ties, r->at_once), one);
    r->stats = T(stats_of)(r->stats.row_max, r->shift.top, n_ties, K(sums_of_rows)(others, r->at_once), kind.op);
    r->dot = r->weight = r->others_q = zero;
    if (kind.op != OP_CROSS_ENTROPY) return;

    const mask is_max = V(eq)(r->label_logit, r->stats.row_max);
    const vec q = r->known.label_q;
    vec dot_all = T(cost)(r->label_logit, q, r->stats.row_max);
    vec top = V(select)(is_max, q, zero), beside = V(select)(is_max, zero, q);
    if (kind.density == EVEN) {
        const vec n_classes = V(set1)((real)r->call->b->n_classes);
        dot_all = V(fma)(r->share, K(sums_of_rows)(dot, r->at_once), dot_all);
        top = V(fma)(r->share, n_ties, top), beside = V(fma)(r->share, V(sub)(n_classes, n_ties), beside);
    } else if (kind.density == DENSE) {
        dot_all = V(add)(K(sums_of_rows)(dot, r->at_once), dot_all);
        top = V(add)(K(sums_of_rows)(top_q, r->at_once), top);
        beside = V(add)(K(sums_of_rows)(others_q, r->at_once), beside);
    }
    r->dot = dot_all, r->others_q = beside, r->weight = V(add)(top, beside);
}

/* ---- Third sweep: the output ------------------------------------------------------------------------------------- */

/* The output's vector k, from the exps. */
SIMD_INLINE vec T(row_entry)(const T(row) * row, vec e, ptrdiff_t k, ptrdiff_t left, const row_kind kind)
{
    const T(factors) factors = {row->scale, row->least, row->at_top};
    if (kind.op == OP_SOFTMAX) return T(probability)(e, row->shift.top, factors);
    vec x = T(scaled)(e, row->scale, row->least);
    if (kind.density == EVEN) x = V(fnma)(row->share, row->upstream, x);
    if (kind.density == DENSE) x = V(fnma)(T(density_at)(row, k, left), row->upstream, x);
    if (kind.density != AT_LABEL) x = V(select)(V(eq)(e, row->confident_top), row->at_top, x);
    return x;
}

SIMD_INLINE void T(write_stored)(const T(row) * row, const row_kind kind)
{
    real *out = (real *)(void *)row->out;
    const ptrdiff_t n = row->call->b->n_classes;
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES) {
        UNROLL
        for (int j = 0; j < 4; ++j) {
            real *p = out + k + j * LANES;
            V(store)(p, T(row_entry)(row, V(load)(p), k + j * LANES, LANES, kind));
        }
    }
    for (; k + LANES <= n; k += LANES) V(store)(out + k, T(row_entry)(row, V(load)(out + k), k, LANES, kind));
    if (k < n) V(store_till)(out + k, n - k, T(row_entry)(row, V(load_till)(out + k, n - k, 0), k, n - k, kind));
}

/* For any strides, with the exps computed again; or, for log_softmax, (z - m) - log S. */
SIMD_INLINE void T(write_computed)(const T(row) * row, const row_kind kind, const int near)
{
    const softxent_block *b = row->call->b;
    const ptrdiff_t n = b->n_classes, stride = b->out_class_stride, size = T(size_of_element)(kind.type);
    for (ptrdiff_t k = 0; k < n; k += LANES) {
        const ptrdiff_t left = n - k;
        const vec z = T(row_load)(row, k, left, kind.type, V(set1)(-(real)INFINITY));
        char *out = row->out + k * stride * size;
        vec x;
        if (kind.op == OP_LOG_SOFTMAX) {
            x = V(sub)(V(sub)(z, row->row_max), row->log_sum);
        } else {
            vec e = T(exp_shifted)(z, row->shift, near);
            if (kind.density != AT_LABEL) e = V(select)(V(eq)(z, row->row_max), row->shift.top, e);
            x = T(row_entry)(row, e, k, left, kind);
        }
        if (b->accumulate) x = V(add)(T(load_any)(out, kind.type, stride, left), x);
        T(store_any)(out, kind.type, stride, left, x);
    }
}

SIMD_INLINE void T(write_zeros)(const T(batch) * r, int i, const row_kind kind)
{
    const softxent_block *b = r->call->b;
    char *out = T(out_of)(r, i, kind.type);
    for (ptrdiff_t k = 0; k < b->n_classes && !b->accumulate; ++k)
        T(set_element)(out, kind.type, k * b->out_class_stride, 0);
}

/* The entries at the labels. With a density they are formed as all others are. */
SIMD_INLINE vec T(entries_at_labels)(const T(batch) * r, T(factors) x, const row_kind kind)
{
    const T(known) *k = &r->known;
    if (kind.density == AT_LABEL) return T(gradient_at_label)(r->call, k, r->stats, r->label_logit, r->shift, r->lse);
    const mask is_max = V(eq)(r->label_logit, r->stats.row_max);
    const vec e = V(select)(is_max, r->stats.top, T(exp_shifted)(r->label_logit, r->shift, 0));
    const vec q = V(fma)(r->share, r->label_weight, k->label_q);
    const vec entry = V(fnma)(q, k->upstream, T(scaled)(e, x.scale, x.least));
    return V(select)(V(eq)(e, T(confident_top)(r->stats)), x.at_top, entry);
}

/* ---- A batch of rows, and a block of them ------------------------------------------------------------------------ */

/* What the rows hold at their labels, before an output may take the logits' place. */
SIMD_INLINE void T(look_up_labels)(T(batch) * r, const row_kind kind)
{
    const real *w = (const real *)r->call->o.class_weight;
    r->label_logit = V(set1)(0), r->label_weight = V(set1)(1);
    for (int i = 0; i < r->known.n_samples; ++i) {
        const ptrdiff_t y = (ptrdiff_t)r->known.label[i];
        if (y < 0) continue;
        r->label_logit = T(put_lane)(r->label_logit, i, T(element)(T(logits_of)(r, i, kind.type), kind.type, y));
        if (kind.density != AT_LABEL && w) r->label_weight = T(put_lane)(r->label_weight, i, w[y]);
    }
}

SIMD_INLINE void T(write_batch)(const T(batch) * r, T(spread) * lanes, const row_kind kind)
{
    const softxent_block *b = r->call->b;
    real entries[LANES] = {0};
    T(factors) x = T(softmax_factors)(r->stats);
    if (kind.op == OP_CROSS_ENTROPY) {
        x = T(gradient_factors)(r->call, &r->known, r->stats, r->weight, r->lse);
        x.at_top = T(gradient_at_top)(r->call, &r->known, r->stats, r->weight, r->others_q, r->lse);
        V(store)(entries, T(entries_at_labels)(r, x, kind));
    }
    V(store)(lanes->scale, x.scale), V(store)(lanes->least, x.least), V(store)(lanes->at_top, x.at_top);
    V(store)(lanes->upstream, r->known.upstream), V(store)(lanes->log_sum, r->log_sum);
    V(store)(lanes->confident_top, T(confident_top)(r->stats));
    for (int i = 0; i < r->known.n_samples; ++i) {
        if (!T(has_part)(r, i)) {
            T(write_zeros)(r, i, kind);
            continue;
        }
        T(row) row = T(row_of)(r, lanes, i, kind);
        row.scale = V(set1)(lanes->scale[i]), row.least = V(set1)(lanes->least[i]);
        row.at_top = V(set1)(lanes->at_top[i]), row.confident_top = V(set1)(lanes->confident_top[i]);
        row.upstream = V(set1)(lanes->upstream[i]), row.log_sum = V(set1)(lanes->log_sum[i]);
        const ptrdiff_t y = (ptrdiff_t)r->known.label[i], at_label = y * b->out_class_stride;
        const real before = y >= 0 && b->accumulate ? T(element)(row.out, kind.type, at_label) : 0;
        if (kind.output == STORED)
            T(write_stored)(&row, kind);
        else if (lanes->base[i] == 0 && !kind.small)
            T(write_computed)(&row, kind, 1);
        else
            T(write_computed)(&row, kind, 0);
        if (y >= 0) T(set_element)(row.out, kind.type, at_label, before + entries[i]);
    }
}

SIMD_INLINE void T(row_batch)(T(batch) * r, const row_kind kind)
{
    const softxent_block *b = r->call->b;
    const vec row_max = T(max_of_batch)(r, kind);
    T(spread) lanes;
    T(look_up_labels)(r, kind);
    r->shift = T(shift_of)(row_max), r->stats.row_max = row_max;
    V(store)(lanes.row_max, row_max), V(store)(lanes.base, r->shift.base), V(store)(lanes.rounder, r->shift.rounder);
    V(store)(lanes.floor, r->shift.floor), V(store)(lanes.top, r->shift.top);
    T(sum_batch)(r, &lanes, kind);
    r->log_sum = T(log_sum)(r->stats), r->lse = V(add)(r->log_sum, row_max);
    if (kind.op == OP_CROSS_ENTROPY || kind.op == OP_LOGSUMEXP) {
        const int is_loss = kind.op == OP_CROSS_ENTROPY;
        const vec value = is_loss ? T(loss_of)(r->call, &r->known, r->weight, r->log_sum, r->dot, r->lse) : r->lse;
        char *first = (char *)b->loss + r->known.begin * b->loss_stride * T(size_of_element)(b->loss_type);
        T(scatter)(first, b->loss_type, b->loss_stride, r->known.n_samples, value);
    }
    if (kind.output != NO_OUTPUT) T(write_batch)(r, &lanes, kind);
}

/* Until the block or its good labels end. */
SIMD_INLINE ptrdiff_t T(row_block)(const softxent_block *b, const row_kind kind)
{
    const T(call) call = T(call_of)(b);
    T(batch) r;
    r.call = &call, r.at_once = T(rows_at_once)(b->n_classes);
    T(labels) labels;
    T(no_labels)(&labels);
    r.share = V(set1)((real)(call.o.label_smoothing / (double)b->n_classes));
    for (ptrdiff_t begin = 0; begin < b->n_samples; begin += r.at_once) {
        const int n_rows = (int)(b->n_samples - begin < r.at_once ? b->n_samples - begin : r.at_once);
        T(know)(&r.known, &labels, &call, begin, n_rows, 0);
        if (r.known.n_samples > 0) T(row_batch)(&r, kind);
        if (r.known.n_samples < n_rows) return begin + r.known.n_samples;
    }
    return b->n_samples;
}

/* ---- Each kind of call that should be fast has code of its own; the rest share theirs ---------------------------- */

static ptrdiff_t K(row_loss)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_CROSS_ENTROPY, NO_OUTPUT, SOFTXENT_REAL, AT_LABEL, 0});
}

static ptrdiff_t K(row_loss_grad)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_CROSS_ENTROPY, STORED, SOFTXENT_REAL, AT_LABEL, 0});
}

static ptrdiff_t K(row_loss_even)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_CROSS_ENTROPY, NO_OUTPUT, SOFTXENT_REAL, EVEN, 0});
}

static ptrdiff_t K(row_loss_grad_even)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_CROSS_ENTROPY, STORED, SOFTXENT_REAL, EVEN, 0});
}

static ptrdiff_t K(row_loss_dense)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_CROSS_ENTROPY, NO_OUTPUT, SOFTXENT_REAL, DENSE, 0});
}

static ptrdiff_t K(row_loss_grad_dense)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_CROSS_ENTROPY, STORED, SOFTXENT_REAL, DENSE, 0});
}

static ptrdiff_t K(row_softmax)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_SOFTMAX, STORED, SOFTXENT_REAL, AT_LABEL, 0});
}

static ptrdiff_t K(row_log_softmax)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_LOG_SOFTMAX, RECOMPUTED, SOFTXENT_REAL, AT_LABEL, 0});
}

static ptrdiff_t K(row_logsumexp)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_LOGSUMEXP, NO_OUTPUT, SOFTXENT_REAL, AT_LABEL, 0});
}

#if HALF_PRECISION
static ptrdiff_t K(row_loss_f16)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_CROSS_ENTROPY, NO_OUTPUT, SOFTXENT_FLOAT16, AT_LABEL, 0});
}

static ptrdiff_t K(row_loss_grad_f16)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_CROSS_ENTROPY, RECOMPUTED, SOFTXENT_FLOAT16, AT_LABEL, 0});
}

static ptrdiff_t K(row_loss_bf16)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_CROSS_ENTROPY, NO_OUTPUT, SOFTXENT_BFLOAT16, AT_LABEL, 0});
}

static ptrdiff_t K(row_loss_grad_bf16)(const softxent_block *b)
{
    return T(row_block)(b, (row_kind){OP_CROSS_ENTROPY, RECOMPUTED, SOFTXENT_BFLOAT16, AT_LABEL, 0});
}
#endif

static ptrdiff_t K(row_other)(const softxent_block *b, row_kind kind)
{
    kind.small = 1; /* known to the compiler here */
    return T(row_block)(b, kind);
}

static ptrdiff_t K(row_run)(const softxent_block *b, softxent_op op)
{
    const int is_loss = op == OP_CROSS_ENTROPY, smooth = b->options && b->options->label_smoothing > 0;
    const int dense = is_loss && (b->target || (smooth && b->options->class_weight));
    const int can_store = b->out_class_stride == 1 && !b->accumulate && !b->logits_type && op != OP_LOG_SOFTMAX;
    row_kind kind = {op, can_store ? STORED : RECOMPUTED, b->logits_type, dense ? DENSE : AT_LABEL, 0};
    if (is_loss && smooth && !dense) kind.density = EVEN;
    if (!b->out || op == OP_LOGSUMEXP) kind.output = NO_OUTPUT;
    typedef ptrdiff_t kernel(const softxent_block *);
    static kernel *const losses[] = {K(row_loss), K(row_loss_even), K(row_loss_dense)};
    static kernel *const gradients[] = {K(row_loss_grad), K(row_loss_grad_even), K(row_loss_grad_dense)};
    if (b->logits_type == SOFTXENT_REAL) {
        if (is_loss && kind.output == NO_OUTPUT) return losses[kind.density](b);
        if (is_loss && kind.output == STORED) return gradients[kind.density](b);
        if (op == OP_SOFTMAX && kind.output == STORED) return K(row_softmax)(b);
        if (op == OP_LOG_SOFTMAX) return K(row_log_softmax)(b);
        if (op == OP_LOGSUMEXP) return K(row_logsumexp)(b);
    }
#if HALF_PRECISION
    if (is_loss && kind.density == AT_LABEL && b->logits_type != SOFTXENT_REAL) {
        const int is_f16 = b->logits_type == SOFTXENT_FLOAT16;
        if (!b->out) return is_f16 ? K(row_loss_f16)(b) : K(row_loss_bf16)(b);
        return is_f16 ? K(row_loss_grad_f16)(b) : K(row_loss_grad_bf16)(b);
    }
#endif
    return K(row_other)(b, kind);
}
