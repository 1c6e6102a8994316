/* row_kernel.h - template: samples whose class axis is contiguous, each with its classes in vector lanes. Outputs may
 * have any strides, the logits half precision; targets, label smoothing and all weights are known here, the options
 * that change the logits themselves are not.
 *
 * Three sweeps over rows that stay in cache: maximum; exp, summed and stored, in the output where that can hold it,
 * else in a buffer if the rows are short; scaling. As many rows as fit in the first-level cache go through a sweep
 * together, and what lies between the sweeps (sums across lanes, logarithms, divisions) is done for all of them at
 * once, a row in each lane. */

/* What of a call is known when its kernel is compiled: whether the third sweep finds the exps where the second stored
 * them, the element type, and where the target's density lies. */
#ifndef SOFTXENT_ROW_KIND
#  define SOFTXENT_ROW_KIND
enum { NO_OUTPUT, STORED, RECOMPUTED };
enum { ROW_BATCH_BYTES = 1 << 14, PREFETCHED_BYTES = 1 << 19 };
typedef struct {
    softxent_op op;
    int output, type;
    softxent_density density;
    int rare; /* any output, strided or added to; no loops of their own for the rows that are near 0 */
} row_kind;
#endif

/* How many rows go together: a matter of the number of classes alone, as it decides the order of sums. */
SIMD_INLINE int T(rows_at_once)(ptrdiff_t n_classes)
{
    const ptrdiff_t rows = ROW_BATCH_BYTES / (ptrdiff_t)sizeof(real) / n_classes;
    return (int)(rows < 1 ? 1 : rows > LANES ? LANES : rows);
}

/* Whether the exps of the rows could wait in a buffer of the batch, where the output cannot hold them. */
SIMD_INLINE int T(is_short)(ptrdiff_t n_classes) { return n_classes <= ROW_BATCH_BYTES / (ptrdiff_t)sizeof(real); }

/* Up to LANES rows, a row in each lane. */
typedef struct {
    const T(call) * call;
    int at_once;
    T(known) known;
    T(sample) found;
    vec tails[LANES]; /* of each row the last vector, where not all of its lanes are in the row: logits, then exps */
    vec exps[ROW_BATCH_BYTES / sizeof(vec) + LANES];
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

/* Whether a whole vector at the end of a row's logits is still in the array: in the next row. From memory it is faster
 * by far to load that than just the lanes that there are. */
SIMD_INLINE int T(has_next)(const T(batch) * r, int row)
{
    const softxent_block *b = r->call->b;
    return b->logits_sample_stride == b->n_classes && r->known.begin + row + 1 < b->n_samples;
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

/* The logits from k on, less than a vector. */
SIMD_INLINE vec T(tail_of)(const T(batch) * r, int row, ptrdiff_t k, const int type)
{
    const char *z = T(logits_of)(r, row, type) + k * T(size_of_element)(type);
    const ptrdiff_t left = r->call->b->n_classes - k;
    return T(has_next)(r, row) ? T(first_lanes)(T(load_vector)(z, type), left, -(real)INFINITY)
                               : T(load_vector_till)(z, type, left, -(real)INFINITY);
}

/* Lane by lane. nan is passed over here; it shows up in the sum. The tail is kept. */
SIMD_INLINE vec T(row_max)(T(batch) * r, int row, const int type)
{
    const char *z = T(logits_of)(r, row, type);
    const ptrdiff_t size = T(size_of_element)(type), n = r->call->b->n_classes;
    const real lowest = -(real)INFINITY;
    vec vmax[4] = {V(set1)(lowest), V(set1)(lowest), V(set1)(lowest), V(set1)(lowest)};
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES) {
        UNROLL
        for (int i = 0; i < 4; ++i) vmax[i] = V(max)(T(load_vector)(z + (k + i * LANES) * size, type), vmax[i]);
    }
    for (; k + LANES <= n; k += LANES) vmax[0] = V(max)(T(load_vector)(z + k * size, type), vmax[0]);
    if (k < n) {
        r->tails[row] = T(tail_of)(r, row, k, type);
        vmax[1] = V(max)(r->tails[row], vmax[1]);
    }
    return V(max)(V(max)(vmax[0], vmax[1]), V(max)(vmax[2], vmax[3]));
}

SIMD_INLINE vec T(max_of_batch)(T(batch) * r, const row_kind kind)
{
    vec rows[LANES];
    for (int i = 0; i < LANES; ++i) rows[i] = T(has_part)(r, i) ? T(row_max)(r, i, kind.type) : V(set1)(0);
    return K(max_of_rows)(rows, r->at_once);
}

/* ---- Second sweep: the sums -------------------------------------------------------------------------------------- */

/* A row in the second or third sweep: what is the same for all its vectors. */
typedef struct {
    const T(call) * call;
    const char *z, *target, *next_z;
    char *out, *next_out;
    real *exps;
    T(shift) shift;
    T(factors) factors;
    vec row_max, share, keep, log_sum;
    vec *tail;
} T(row);

/* A vector of logits, -inf beyond the last class. */
SIMD_INLINE vec T(row_load)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, const int type)
{
    return left >= LANES ? T(load_vector)(row->z + k * T(size_of_element)(type), type) : *row->tail;
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
    return left >= LANES ? q : T(first_lanes)(q, left, 0);
}

SIMD_INLINE void T(row_term)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, const row_kind kind, const int near,
                             T(part_sums) * part, vec *ties)
{
    const vec z = T(row_load)(row, k, left, kind.type), m = row->row_max;
    if (kind.density != AT_LABEL) {
        /* beyond the last class nothing is below the maximum */
        const vec below = left >= LANES ? V(sub)(m, z) : T(first_lanes)(V(sub)(m, z), left, 0);
        const vec q = kind.density == DENSE ? T(density_at)(row, k, left) : m;
        T(add_target)(part, V(eq)(z, m), below, q, kind.density);
    }
    vec e = T(term)(z, m, row->shift, near, &part->others, ties);
    if (kind.output != STORED) return;
    if (kind.density != AT_LABEL) e = T(with_top)(e, z, m, row->shift.top);
    if (left >= LANES)
        V(store)(row->exps + k, e);
    else
        *row->tail = e;
}

/* While the exps of these rows are computed the next ones come from memory, `classes` from k on: to the second-level
 * cache, which holds both if the rows are not too long for it. */
SIMD_INLINE void T(prefetch_next)(const T(row) * row, ptrdiff_t k, ptrdiff_t classes, const row_kind kind)
{
    const ptrdiff_t size = T(size_of_element)(kind.type);
    if (kind.output != NO_OUTPUT && row->call->b->n_classes > PREFETCHED_BYTES / size) return;
    UNROLL_4
    for (ptrdiff_t line = 0; line < classes * size; line += CACHE_LINE) {
        PREFETCH(row->next_z + k * size + line);
        if (kind.output == STORED) PREFETCH_TO_WRITE(row->next_out + k * size + line);
    }
}

/* Four vectors are added up before they reach the compensated sums. */
SIMD_INLINE T(sums) T(sum_row)(const T(row) * row, const row_kind kind, const int near)
{
    const ptrdiff_t n = row->call->b->n_classes;
    T(sums) s = T(no_sums)();
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES) {
        T(part_sums) part = T(no_part)();
        T(prefetch_next)(row, k, 4 * LANES, kind);
        UNROLL
        for (int j = 0; j < 4; ++j) T(row_term)(row, k + j * LANES, LANES, kind, near, &part, &s.ties);
        T(add_part)(&s, part, kind.density);
    }
    T(part_sums) last = T(no_part)();
    T(prefetch_next)(row, k, n - k, kind);
    for (; k + LANES <= n; k += LANES) T(row_term)(row, k, LANES, kind, near, &last, &s.ties);
    if (k < n) T(row_term)(row, k, n - k, kind, near, &last, &s.ties);
    T(add_part)(&s, last, kind.density);
    return s;
}

/* A vector's lanes, each to be spread over a vector of its own. */
typedef struct {
    real row_max[LANES], base[LANES], rounder[LANES], floor[LANES], top[LANES], log_sum[LANES];
    real scale[LANES], least[LANES], known_by[LANES], at_top[LANES], upstream[LANES];
} T(spread);

SIMD_INLINE T(row) T(row_of)(T(batch) * r, const T(spread) * lanes, int i, const row_kind kind)
{
    const softxent_block *b = r->call->b;
    T(row) row = {.call = r->call, .z = T(logits_of)(r, i, kind.type), .share = r->found.share, .tail = &r->tails[i]};
    row.shift.base = V(set1)(lanes->base[i]), row.shift.rounder = V(set1)(lanes->rounder[i]);
    row.shift.floor = V(set1)(lanes->floor[i]), row.shift.top = V(set1)(lanes->top[i]);
    row.row_max = V(set1)(lanes->row_max[i]);
    row.next_z = T(logits_of)(r, i + r->at_once, kind.type);
    if (kind.output != NO_OUTPUT) row.next_out = T(out_of)(r, i + r->at_once, kind.type);
    row.keep = V(set1)((real)(1 - r->call->o.label_smoothing));
    const ptrdiff_t target_row = (r->known.begin + i) * b->target_sample_stride;
    if (b->target) row.target = (const char *)b->target + target_row * T(size_of_element)(b->target_type);
    if (kind.output != NO_OUTPUT) row.out = T(out_of)(r, i, kind.type);
    if (kind.output != STORED) return row;
    row.exps = (real *)(void *)row.out;
    if (!kind.rare && kind.type == SOFTXENT_REAL) return row;
    row.exps = (real *)(r->exps + i * ((b->n_classes + LANES - 1) / LANES));
    return row;
}

SIMD_INLINE void T(sum_batch)(T(batch) * r, T(spread) * lanes, const row_kind kind)
{
    T(compensated) others[LANES], dot[LANES], top_q[LANES], others_q[LANES];
    vec ties[LANES];
    for (int i = 0; i < r->at_once; ++i) {
        T(sums) s = T(no_sums)();
        if (T(has_part)(r, i)) {
            const T(row) row = T(row_of)(r, lanes, i, kind);
            s = lanes->base[i] == 0 && !kind.rare ? T(sum_row)(&row, kind, 1) : T(sum_row)(&row, kind, 0);
        }
        others[i] = s.others, ties[i] = s.ties;
        dot[i] = s.dot, top_q[i] = s.top_q, others_q[i] = s.others_q;
    }
    for (int i = r->at_once; i < LANES; ++i) ties[i] = V(set1)(0);
    T(sample) *f = &r->found;
    const vec zero = V(set1)(0), n_classes = V(set1)((real)r->call->b->n_classes);
    const vec n_ties = V(select)(r->known.counted, K(counts_of_rows)(ties, r->at_once), V(set1)(1));
    f->stats = T(stats_of)(f->stats.row_max, f->shift.top, n_ties, K(sums_of_rows)(others, r->at_once), kind.op);
    f->dot = f->weight = f->others_q = zero;
    if (kind.op != OP_CROSS_ENTROPY) return;
    const int is_dense = kind.density == DENSE;
    const vec all_dot = kind.density == AT_LABEL ? zero : K(sums_of_rows)(dot, r->at_once);
    const vec all_top_q = is_dense ? K(sums_of_rows)(top_q, r->at_once) : zero;
    const vec all_others_q = is_dense ? K(sums_of_rows)(others_q, r->at_once) : zero;
    T(weigh)(f, &r->known, all_dot, all_top_q, all_others_q, n_classes, kind.density);
}

/* ---- Third sweep: the output ------------------------------------------------------------------------------------- */

SIMD_INLINE vec T(row_entry)(const T(row) * row, vec e, ptrdiff_t k, ptrdiff_t left, const row_kind kind)
{
    if (kind.op == OP_SOFTMAX) return T(softmax_entry)(e, row->factors);
    const vec q = kind.density == DENSE ? T(density_at)(row, k, left) : row->share;
    return T(gradient_entry)(e, q, row->factors, kind.density);
}

SIMD_INLINE void T(put_vector)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, vec x, const row_kind kind)
{
    const softxent_block *b = row->call->b;
    const ptrdiff_t stride = kind.rare ? b->out_class_stride : 1;
    char *p = row->out + k * stride * T(size_of_element)(kind.type);
    if (kind.rare) {
        if (b->accumulate) x = V(add)(T(load_any)(p, kind.type, stride, left), x);
        T(store_any)(p, kind.type, stride, left, x);
    } else if (left >= LANES) {
        T(store_vector)(p, kind.type, x);
    } else {
        *row->tail = x;
    }
}

/* The output's vector k, from the exps; or, for log_softmax, (z - m) - log S. */
SIMD_INLINE void T(write_vector)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, const row_kind kind, const int near)
{
    vec x;
    if (kind.output == STORED) {
        x = T(row_entry)(row, left >= LANES ? V(load)(row->exps + k) : *row->tail, k, left, kind);
    } else {
        const vec z = T(row_load)(row, k, left, kind.type);
        if (kind.op == OP_LOG_SOFTMAX) {
            x = V(sub)(V(sub)(z, row->row_max), row->log_sum);
        } else {
            const vec e = kind.density == AT_LABEL ? T(exp_shifted)(z, row->shift, near)
                                                   : T(exp_with_top)(z, row->row_max, row->shift, near);
            x = T(row_entry)(row, e, k, left, kind);
        }
    }
    T(put_vector)(row, k, left, x, kind);
}

/* All but the tail, which waits for write_tails. */
SIMD_INLINE void T(write_row)(const T(row) * row, const row_kind kind, const int near)
{
    const ptrdiff_t n = row->call->b->n_classes;
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n && !kind.rare; k += 4 * LANES) {
        UNROLL
        for (int j = 0; j < 4; ++j) T(write_vector)(row, k + j * LANES, LANES, kind, near);
    }
    for (; k + LANES <= n; k += LANES) T(write_vector)(row, k, LANES, kind, near);
    if (k < n) T(write_vector)(row, k, n - k, kind, near);
}

SIMD_INLINE void T(write_zeros)(const T(batch) * r, int i, const row_kind kind)
{
    const softxent_block *b = r->call->b;
    char *out = T(out_of)(r, i, kind.type);
    for (ptrdiff_t k = 0; k < b->n_classes && !b->accumulate; ++k)
        T(set_element)(out, kind.type, k * b->out_class_stride, 0);
}

/* ---- A batch of rows, and a block of them ------------------------------------------------------------------------ */

/* What the rows hold at their labels, before an output may take the logits' place. */
SIMD_INLINE void T(look_up_labels)(T(batch) * r, const row_kind kind)
{
    vec label_logit = V(set1)(0);
    for (int i = 0; i < r->known.n_samples; ++i) {
        const ptrdiff_t y = (ptrdiff_t)r->known.label[i];
        if (y >= 0) label_logit = T(put_lane)(label_logit, i, T(element)(T(logits_of)(r, i, kind.type), kind.type, y));
    }
    r->found.label_logit = label_logit;
}

/* After all rows: what a masked store may write, and be it the next row's beginning, cannot be read again soon. */
SIMD_INLINE void T(write_tails)(const T(batch) * r, const row_kind kind)
{
    const ptrdiff_t n = r->call->b->n_classes, left = n % LANES;
    for (int i = 0; i < r->known.n_samples && left; ++i)
        if (T(has_part)(r, i))
            T(store_vector_till)(T(out_of)(r, i, kind.type) + (n - left) * T(size_of_element)(kind.type), kind.type,
                                 left, r->tails[i]);
}

/* Over what is at the labels. */
SIMD_INLINE void T(write_entries)(const T(batch) * r, const real *entries, const row_kind kind)
{
    const ptrdiff_t stride = r->call->b->out_class_stride;
    for (int i = 0; i < r->known.n_samples; ++i)
        if (r->known.label[i] >= 0)
            T(set_element)(T(out_of)(r, i, kind.type), kind.type, (ptrdiff_t)r->known.label[i] * stride, entries[i]);
}

SIMD_INLINE void T(write_batch)(T(batch) * r, T(spread) * lanes, const row_kind kind)
{
    const softxent_block *b = r->call->b;
    const int is_loss = has_gradient(kind.op);
    const T(sample) *f = &r->found;
    const T(factors) x =
        is_loss ? T(gradient_factors)(r->call, &r->known, f, kind.density) : T(softmax_factors)(f->stats);
    real entries[LANES] = {0};
    if (is_loss) V(store)(entries, T(label_entry)(r->call, &r->known, f, x, kind.density));
    V(store)(lanes->scale, x.scale), V(store)(lanes->least, x.least), V(store)(lanes->known_by, x.top);
    V(store)(lanes->at_top, x.at_top), V(store)(lanes->upstream, x.upstream), V(store)(lanes->log_sum, f->log_sum);
    for (int i = 0; i < r->known.n_samples; ++i) {
        if (!T(has_part)(r, i)) {
            T(write_zeros)(r, i, kind);
            continue;
        }
        T(row) row = T(row_of)(r, lanes, i, kind);
        row.factors.scale = V(set1)(lanes->scale[i]), row.factors.least = V(set1)(lanes->least[i]);
        row.factors.top = V(set1)(lanes->known_by[i]), row.factors.at_top = V(set1)(lanes->at_top[i]);
        row.factors.upstream = V(set1)(lanes->upstream[i]), row.log_sum = V(set1)(lanes->log_sum[i]);
        const ptrdiff_t y = (ptrdiff_t)r->known.label[i];
        if (y >= 0 && b->accumulate) entries[i] += T(element)(row.out, kind.type, y * b->out_class_stride);
        if (kind.output == RECOMPUTED && lanes->base[i] == 0 && !kind.rare)
            T(write_row)(&row, kind, 1);
        else
            T(write_row)(&row, kind, 0);
    }
    if (!kind.rare) T(write_tails)(r, kind);
    if (is_loss) T(write_entries)(r, entries, kind);
}

/* What the first two sweeps would have found, from the parts of all classes. */
SIMD_INLINE void T(recall_batch)(T(batch) * r, const row_kind kind)
{
    const ptrdiff_t n = r->call->b->n_classes, left = n % LANES;
    const T(parts) p = T(read_parts)(r->call->b, &r->known);
    T(take_parts)(&r->found, &r->known, p, T(shift_of)(p.row_max));
    for (int i = 0; i < r->at_once && left; ++i)
        if (T(has_part)(r, i)) r->tails[i] = T(tail_of)(r, i, n - left, kind.type);
}

SIMD_INLINE void T(row_batch)(T(batch) * r, const row_kind kind)
{
    T(sample) *f = &r->found;
    T(spread) lanes;
    if (kind.op == OP_FINISH) {
        T(recall_batch)(r, kind);
    } else {
        f->stats.row_max = T(max_of_batch)(r, kind), f->shift = T(shift_of)(f->stats.row_max);
        T(look_up_labels)(r, kind);
    }
    V(store)(lanes.row_max, f->stats.row_max), V(store)(lanes.base, f->shift.base);
    V(store)(lanes.rounder, f->shift.rounder), V(store)(lanes.floor, f->shift.floor);
    V(store)(lanes.top, f->shift.top);
    if (kind.op != OP_FINISH) T(sum_batch)(r, &lanes, kind);
    f->log_sum = T(log_sum)(f->stats), f->lse = V(add)(f->log_sum, f->stats.row_max);
    if (kind.op == OP_PART) T(write_parts)(r->call->b, &r->known, f);
    if (kind.op == OP_CROSS_ENTROPY) T(store_losses)(r->call, &r->known, T(loss_of)(r->call, &r->known, f));
    if (kind.op == OP_LOGSUMEXP) T(store_losses)(r->call, &r->known, f->lse);
    if (kind.output != NO_OUTPUT) T(write_batch)(r, &lanes, kind);
}

/* Until the block or its good labels end. */
SIMD_INLINE ptrdiff_t T(row_block)(const softxent_block *b, const row_kind kind)
{
    const T(call) call = T(call_of)(b);
    T(batch) r;
    r.call = &call, r.at_once = T(rows_at_once)(b->n_classes);
    T(labels) labels;
    T(no_labels)(&labels), T(know_nothing)(&r.known);
    r.tails[0] = V(set1)(0); /* never used; compilers cannot see that where a vector has one lane */
    r.found.share = T(even_share)(&call);
    for (ptrdiff_t begin = 0; begin < b->n_samples; begin += r.at_once) {
        const int n_rows = (int)(b->n_samples - begin < r.at_once ? b->n_samples - begin : r.at_once);
        T(know)(&r.known, &labels, &call, begin, n_rows, 0);
        if (r.known.n_samples > 0) T(row_batch)(&r, kind);
        if (r.known.n_samples < n_rows) return begin + r.known.n_samples;
    }
    return b->n_samples;
}

/* ---- Each kind of call that should be fast has code of its own; the rest share theirs ---------------------------- */

#define ROW_KERNEL(name, op, output, type, density)                                                                    \
      static ptrdiff_t K(name)(const softxent_block *b)                                                                \
      {                                                                                                                \
          return T(row_block)(b, (row_kind){op, output, type, density, 0});                                            \
      }
ROW_KERNEL(row_loss, OP_CROSS_ENTROPY, NO_OUTPUT, SOFTXENT_REAL, AT_LABEL)
ROW_KERNEL(row_loss_even, OP_CROSS_ENTROPY, NO_OUTPUT, SOFTXENT_REAL, EVEN)
ROW_KERNEL(row_loss_dense, OP_CROSS_ENTROPY, NO_OUTPUT, SOFTXENT_REAL, DENSE)
ROW_KERNEL(row_grad, OP_CROSS_ENTROPY, STORED, SOFTXENT_REAL, AT_LABEL)
ROW_KERNEL(row_grad_even, OP_CROSS_ENTROPY, STORED, SOFTXENT_REAL, EVEN)
ROW_KERNEL(row_grad_dense, OP_CROSS_ENTROPY, STORED, SOFTXENT_REAL, DENSE)
ROW_KERNEL(row_softmax, OP_SOFTMAX, STORED, SOFTXENT_REAL, AT_LABEL)
ROW_KERNEL(row_log_softmax, OP_LOG_SOFTMAX, RECOMPUTED, SOFTXENT_REAL, AT_LABEL)
ROW_KERNEL(row_logsumexp, OP_LOGSUMEXP, NO_OUTPUT, SOFTXENT_REAL, AT_LABEL)
ROW_KERNEL(row_part, OP_PART, NO_OUTPUT, SOFTXENT_REAL, AT_LABEL)
ROW_KERNEL(row_finish, OP_FINISH, RECOMPUTED, SOFTXENT_REAL, AT_LABEL)
#if HALF_PRECISION
ROW_KERNEL(row_loss_f16, OP_CROSS_ENTROPY, NO_OUTPUT, SOFTXENT_FLOAT16, AT_LABEL)
ROW_KERNEL(row_grad_f16, OP_CROSS_ENTROPY, STORED, SOFTXENT_FLOAT16, AT_LABEL)
ROW_KERNEL(row_long_f16, OP_CROSS_ENTROPY, RECOMPUTED, SOFTXENT_FLOAT16, AT_LABEL)
ROW_KERNEL(row_loss_bf16, OP_CROSS_ENTROPY, NO_OUTPUT, SOFTXENT_BFLOAT16, AT_LABEL)
ROW_KERNEL(row_grad_bf16, OP_CROSS_ENTROPY, STORED, SOFTXENT_BFLOAT16, AT_LABEL)
ROW_KERNEL(row_long_bf16, OP_CROSS_ENTROPY, RECOMPUTED, SOFTXENT_BFLOAT16, AT_LABEL)
#endif
#undef ROW_KERNEL

static ptrdiff_t K(row_other)(const softxent_block *b, row_kind kind)
{
    kind.rare = 1; /* known to the compiler here */
    return T(row_block)(b, kind);
}

static ptrdiff_t K(row_run)(const softxent_block *b, softxent_op op)
{
    typedef ptrdiff_t kernel(const softxent_block *);
    static kernel *const losses[] = {K(row_loss), K(row_loss_even), K(row_loss_dense)};
    static kernel *const grads[] = {K(row_grad), K(row_grad_even), K(row_grad_dense)};
    const int is_loss = op == OP_CROSS_ENTROPY, has_output = b->out && op != OP_LOGSUMEXP;
    const int is_usual = !has_output || (b->out_class_stride == 1 && !b->accumulate);
    const int can_store = T(is_short)(b->n_classes) || (is_usual && b->logits_type == SOFTXENT_REAL);
    const int with_output = can_store && has_exps(op) ? STORED : RECOMPUTED;
    const row_kind kind = {op, has_output ? with_output : NO_OUTPUT, b->logits_type, is_loss ? density_of(b) : AT_LABEL,
                           0};
    if (is_usual && b->logits_type == SOFTXENT_REAL) {
        switch (op) {
        case OP_CROSS_ENTROPY: return (has_output ? grads : losses)[kind.density](b);
        case OP_SOFTMAX: return K(row_softmax)(b);
        case OP_LOG_SOFTMAX: return K(row_log_softmax)(b);
        case OP_LOGSUMEXP: return K(row_logsumexp)(b);
        case OP_PART: return K(row_part)(b);
        default: return K(row_finish)(b);
        }
    }
#if HALF_PRECISION
    static kernel *const halves[][3] = {{K(row_loss_f16), K(row_grad_f16), K(row_long_f16)},
                                        {K(row_loss_bf16), K(row_grad_bf16), K(row_long_bf16)}};
    if (is_usual && is_loss && kind.density == AT_LABEL && b->logits_type != SOFTXENT_REAL)
        return halves[b->logits_type == SOFTXENT_BFLOAT16][kind.output](b);
#endif
    return K(row_other)(b, kind);
}
