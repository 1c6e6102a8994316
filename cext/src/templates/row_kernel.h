/* row_kernel.h - template: samples whose classes lie side by side in memory (class stride 1), each sample a row with
 * its classes in vector lanes. Outputs may have any strides, and logits may have half precision. Targets, label
 * smoothing and all weights are handled here; the options that change the logits themselves are not.
 *
 * Three sweeps go over rows that stay in cache. In plain C, for a batch of logits z[n_rows][n_classes] with index
 * labels (stats.h says how cancellation is avoided):
 *
 *     for (i = 0; i < n_rows; ++i)                                  // first sweep: max_of_batch
 *         row_max[i] = max of z[i][0 .. n_classes - 1];
 *     for (i = 0; i < n_rows; ++i)                                  // second sweep: sum_batch
 *         for (k = 0; k < n_classes; ++k) {
 *             e[i][k] = exp(z[i][k] - row_max[i]);                  // e[n_rows][n_classes]: in `out` or a buffer
 *             z[i][k] == row_max[i] ? (n_max[i] += 1) : (others[i] += e[i][k]);
 *         }
 *     for (i = 0; i < n_rows; ++i) {                                // between sweeps: vectors, row i in lane i
 *         S[i] = n_max[i] + others[i], lse[i] = row_max[i] + log(S[i]), loss[i] = lse[i] - z[i][label[i]];
 *         scale[i] = upstream[i] / S[i], entry[i] = (e[i][label[i]] / S[i] - 1) * upstream[i];
 *     }
 *     for (i = 0; i < n_rows; ++i)                                  // third sweep: write_batch, write_entries
 *         for (k = 0; k < n_classes; ++k)
 *             out[i][k] = k == label[i] ? entry[i] : e[i][k] * scale[i];
 *
 * The exps are stored in the output if it can hold them, else in a buffer if the rows are short; if they are long, the
 * third sweep computes the exps again. A batch is as many rows as fit in the first-level cache, up to LANES. What lies
 * between the sweeps (sums across lanes, logarithms, divisions) is done for all rows of a batch at once. The second and
 * third sweep have code of their own for every kind of call that should be fast; all other calls share generic code. */

/* What is constant when the sweeps of a call are compiled: the operation; whether the third sweep finds the exps where
 * the second one stored them; the element types; and the target kind. */
#ifndef SOFTXENT_ROW_KIND
#  define SOFTXENT_ROW_KIND
enum { NO_OUTPUT, STORED, RECOMPUTED };
enum { ROW_BATCH_BYTES = 1 << 14, PREFETCHED_BYTES = 1 << 19 };
enum { QUAD = 4 }; /* vectors that are ranked together */
typedef struct {
    softxent_op op;
    int output, type, out_type;
    softxent_target_kind target_kind;
    int is_generic; /* any output, strided or accumulated; nothing is constant at compile time */
    int has_excess; /* as in T(targets) */
} row_kind;
#endif

/* How many rows go through a sweep together. This depends on the number of classes alone, because it decides the order
 * of sums. */
SIMD_INLINE int T(rows_at_once)(ptrdiff_t n_classes)
{
    const ptrdiff_t rows = ROW_BATCH_BYTES / (ptrdiff_t)sizeof(real) / n_classes;
    return (int)(rows < 1 ? 1 : rows > LANES ? LANES : rows);
}

/* Whether the exps of a batch fit in its buffer, where the output cannot hold them. */
SIMD_INLINE int T(is_short)(ptrdiff_t n_classes) { return n_classes <= ROW_BATCH_BYTES / (ptrdiff_t)sizeof(real); }

/* Values of each row, stored from vectors that have a row in each lane. From here each is loaded into all lanes of a
 * vector of its own. */
typedef struct {
    real row_max[LANES], base[LANES], rounder[LANES], floor[LANES], top[LANES], log_sum[LANES];
    real scale[LANES], least[LANES], top_exp[LANES], at_top[LANES], upstream[LANES], excess[LANES];
} T(row_scalars);

/* The entries of a sparse target, by row; and their sums, as a DENSE target has them. */
typedef struct {
    ptrdiff_t class[LANES][MOST_MASSES];
    real logit[LANES][MOST_MASSES], q[LANES][MOST_MASSES];
    vec cost[LANES], top_q[LANES], others_q[LANES];
} T(masses);

/* A batch of up to LANES rows. In `targets` and `sample` each row has a lane. */
typedef struct {
    const T(call) * call;
    row_kind kind;
    int at_once, has_prefetch;
    T(targets) targets;
    T(sample) sample;
    T(row_scalars) lanes; /* what the sweeps need of `sample` */
    /* The sums of each row, lane by lane. */
    T(compensated) others[LANES], target_cost[LANES], top_q[LANES], others_q[LANES], depth[LANES];
    vec n_max[LANES], n_bad[LANES];
    vec tails[LANES]; /* by row, if its last vector is not whole: its logits, then its exps, then its output */
    vec exps[ROW_BATCH_BYTES / sizeof(vec) + LANES];
    /* For ranks. `label` has the label of each row. The vectors have a row in each lane. n_before is the rank of the
     * label minus the number of classes in the quads before the label's quad. top_quad is the quad of the first
     * maximum, and `top` its class in that quad, both counted downwards from 0. */
    const int64_t *label;
    int64_t target_label[LANES];
    T(masses) masses;
    vec n_before, top_quad, top;
} T(batch);

/* ---- Rows and lanes ---------------------------------------------------------------------------------------------- */

SIMD_INLINE const char *T(logits_of)(const T(batch) * r, int row, int type)
{
    const softxent_block *b = r->call->b;
    return (const char *)b->logits + (r->targets.begin + row) * b->logits_sample_stride * T(size_of_element)(type);
}

SIMD_INLINE char *T(out_of)(const T(batch) * r, int row, int type)
{
    const softxent_block *b = r->call->b;
    return (char *)b->out + (r->targets.begin + row) * b->out_sample_stride * T(size_of_element)(type);
}

/* The number of rows whose last vector may be loaded whole, because the next row of the logits follows in memory. From
 * memory a whole load is far faster than a masked load. */
SIMD_INLINE ptrdiff_t T(rows_with_next)(const T(batch) * r)
{
    const softxent_block *b = r->call->b;
    return b->logits_sample_stride == b->n_classes ? b->n_samples - r->targets.begin - 1 : 0;
}

/* Whether the row is in the batch and is not ignored. */
SIMD_INLINE int T(is_counted)(const T(batch) * r, int row)
{
    return row < r->targets.n_samples && r->targets.label[row] != LABEL_IGNORED;
}

/* Loads a vector of a row with any stride; lanes from n on are 0. store_strided leaves them unwritten. load_any and
 * store_any have the usual case inline. */
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

static void K(transpose)(vec *rows) { V(transpose)(rows); }

/* Takes one vector of every row, and returns the maximum of each row, with a row in each lane. */
static vec K(max_of_rows)(vec *rows, int at_once)
{
    if (at_once == 1) return V(set1)(V(hmax)(rows[0]));
    K(transpose)(rows);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) rows[i] = V(max)(rows[i], rows[i + width]);
    return rows[0];
}

/* Takes one vector of every row, and returns the sum of each row, with a row in each lane: of counts, which are exact,
 * or of few numbers. */
static vec K(lanes_of_rows)(vec *rows, int at_once)
{
    if (at_once == 1) return V(set1)((real)V(hsum)(rows[0]));
    K(transpose)(rows);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) rows[i] = V(add)(rows[i], rows[i + width]);
    return rows[0];
}

/* Takes the compensated sums of every row, lane by lane, and returns the sum of each row, with a row in each lane.
 * Two-sum (Knuth) gives the rounding error of every addition; the errors are collected in the carry, which is
 * subtracted at the end. The carry of an infinite sum is inf - inf, a nan, and is left out. */
static vec K(sums_of_rows)(const T(compensated) * rows, int at_once)
{
    vec sum[LANES], carry[LANES];
    const vec zero = V(set1)(0);
    if (at_once == 1) return T(across)(rows[0]);
    for (int i = 0; i < LANES; ++i) {
        sum[i] = i < at_once ? rows[i].sum : zero;
        carry[i] = i < at_once ? rows[i].carry : zero;
    }
    K(transpose)(sum), K(transpose)(carry);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) {
            const vec a = sum[i], b = sum[i + width], s = V(add)(a, b), b_in_s = V(sub)(s, a);
            const vec error = V(add)(V(sub)(a, V(sub)(s, b_in_s)), V(sub)(b, b_in_s));
            sum[i] = s, carry[i] = V(sub)(V(add)(carry[i], carry[i + width]), error);
        }
    return V(sub)(sum[0], V(select)(V(eq)(carry[0], carry[0]), carry[0], zero));
}

/* ---- First sweep: the maximum ------------------------------------------------------------------------------------ */

/* The last n logits of a row, fewer than LANES; -inf in the other lanes. */
SIMD_INLINE vec T(tail_of)(const char *z, ptrdiff_t n, int has_next, const int type)
{
    return has_next ? T(first_lanes)(T(load_vector)(z, type), n, -(real)INFINITY)
                    : T(load_vector_till)(z, type, n, -(real)INFINITY);
}

/* The maximum of a row, lane by lane. max passes over nan, but the sums become nan. *tail is the last vector of the
 * row, if it is not whole. */
SIMD_INLINE vec T(row_max)(const char *z, ptrdiff_t n, int has_next, vec *tail, const int type)
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
    if (k < n) {
        *tail = T(tail_of)(z + k * size, n - k, has_next, type);
        vmax[1] = V(max)(*tail, vmax[1]);
    }
    return V(max)(V(max)(vmax[0], vmax[1]), V(max)(vmax[2], vmax[3]));
}

SIMD_INLINE vec T(max_of_batch)(T(batch) * r, const int type)
{
    const softxent_block *b = r->call->b;
    const ptrdiff_t n_classes = b->n_classes, step = b->logits_sample_stride * T(size_of_element)(type);
    const ptrdiff_t n_with_next = T(rows_with_next)(r);
    const char *z = T(logits_of)(r, 0, type);
    const int64_t *label = r->targets.label;
    const int n_rows = r->targets.n_samples;
    vec rows[LANES];
    for (int i = 0; i < n_rows; ++i)
        rows[i] = label[i] == LABEL_IGNORED ? V(set1)(0)
                                            : T(row_max)(z + i * step, n_classes, i < n_with_next, &r->tails[i], type);
    for (int i = n_rows; i < LANES; ++i) rows[i] = V(set1)(0);
    return K(max_of_rows)(rows, r->at_once);
}

static vec K(max_of_batch_any)(T(batch) * r)
{
    switch (r->kind.type) {
#if HALF_PRECISION
    case SOFTXENT_FLOAT16: return T(max_of_batch)(r, SOFTXENT_FLOAT16);
    case SOFTXENT_BFLOAT16: return T(max_of_batch)(r, SOFTXENT_BFLOAT16);
#endif
    default: return T(max_of_batch)(r, SOFTXENT_REAL);
    }
}

/* ---- First sweep with ranks -------------------------------------------------------------------------------------- */

/* What the sweep with ranks has computed of a row, lane by lane. Quads (four vectors) are counted downwards from 0, so
 * that the first one has the largest number. `quad` is the number of the current quad, `top` that of the first quad
 * that has the maximum of the lane. */
typedef struct {
    vec row_max, top, n_before, quad;
} T(rank_sums);

/* The vectors of a quad, from class k on. If the quad is not whole, the lanes beyond the last class are -inf. */
SIMD_INLINE void T(load_quad)(vec *v, const char *z, ptrdiff_t k, ptrdiff_t n, const vec *tail, const int whole,
                              const int type)
{
    UNROLL
    for (int j = 0; j < QUAD; ++j, k += LANES)
        v[j] = whole || k + LANES <= n ? T(load_vector)(z + k * T(size_of_element)(type), type)
               : k < n                 ? *tail
                                       : V(set1)(-(real)INFINITY);
}

/* Counts the classes of a quad that come before the label. In quads before the label's quad, the classes that do not
 * come before it are counted, each as -1: so each class takes one comparison. Only the label's own quad needs more. */
enum { D(BEFORE_LABEL), D(WITH_LABEL), D(BEHIND_LABEL) };
SIMD_INLINE vec T(count_quad)(const vec *z, vec label_logit, vec label, const int where)
{
    const vec zero = V(set1)(0), one = V(set1)(1);
    vec n = zero;
    UNROLL
    for (int j = 0; j < QUAD; ++j) {
        if (where == D(BEFORE_LABEL)) n = V(add_where)(V(lt)(z[j], label_logit), n, V(set1)(-1));
        if (where != D(BEFORE_LABEL)) n = V(add_where)(V(lt)(label_logit, z[j]), n, one);
        if (where != D(WITH_LABEL)) continue;
        const vec class = V(add)(T(lane_numbers)(), V(set1)((real)(j * LANES)));
        n = V(add_where)(V(eq)(label_logit, z[j]), n, V(select)(V(lt)(class, label), one, zero));
    }
    return n;
}

SIMD_INLINE void T(rank_quad)(T(rank_sums) * s, const vec *z, vec label_logit, vec label, const int where)
{
    const vec largest = V(max)(V(max)(z[0], z[1]), V(max)(z[2], z[3]));
    s->top = V(select)(V(lt)(s->row_max, largest), s->quad, s->top);
    s->row_max = V(max)(largest, s->row_max);
    s->n_before = V(add)(s->n_before, T(count_quad)(z, label_logit, label, where));
    s->quad = V(sub)(s->quad, V(set1)(1));
}

SIMD_INLINE T(rank_sums)
    T(rank_row)(const char *z, ptrdiff_t n, int has_next, vec *tail, ptrdiff_t label, real label_logit, const int type)
{
    const vec zero = V(set1)(0), bound = V(set1)(label_logit);
    const ptrdiff_t size = QUAD * LANES, whole = n - n % LANES, of_label = label / size * size;
    T(rank_sums) s = {V(set1)(-(real)INFINITY), zero, zero, zero};
    vec v[QUAD];
    ptrdiff_t k = 0;
    if (whole < n) *tail = T(tail_of)(z + whole * T(size_of_element)(type), n - whole, has_next, type);
    for (; k < of_label; k += size) {
        T(load_quad)(v, z, k, n, tail, 1, type);
        T(rank_quad)(&s, v, bound, zero, D(BEFORE_LABEL));
    }
    T(load_quad)(v, z, k, n, tail, 0, type);
    T(rank_quad)(&s, v, bound, V(set1)((real)(label - k)), D(WITH_LABEL));
    for (k += size; k + size <= n; k += size) {
        T(load_quad)(v, z, k, n, tail, 1, type);
        T(rank_quad)(&s, v, bound, zero, D(BEHIND_LABEL));
    }
    if (k >= n) return s;
    vec largest = V(set1)(-(real)INFINITY);
    for (; k < n; k += LANES) {
        const vec x = k + LANES <= n ? T(load_vector)(z + k * T(size_of_element)(type), type) : *tail;
        s.n_before = V(add_where)(V(lt)(bound, x), s.n_before, V(set1)(1));
        largest = V(max)(x, largest);
    }
    s.top = V(select)(V(lt)(s.row_max, largest), s.quad, s.top), s.row_max = V(max)(largest, s.row_max);
    return s;
}

/* Lane by lane the first class in a row's quad that has the maximum, counted downwards from 0. */
SIMD_INLINE vec T(top_in_quad)(const T(batch) * r, int i, real row_max, ptrdiff_t k, int type)
{
    const ptrdiff_t n = r->call->b->n_classes, size = T(size_of_element)(type);
    const char *z = T(logits_of)(r, i, type);
    const vec from_next = V(set1)(LANES);
    vec top = V(set1)(-(real)INFINITY), class = V(sub)(V(set1)(-QUAD * LANES), T(lane_numbers)());
    for (ptrdiff_t c = k + (QUAD - 1) * LANES; c >= k; c -= LANES) {
        class = V(add)(class, from_next);
        if (c >= n) continue;
        const vec x = c + LANES <= n ? T(load_any)(z + c * size, type, 1, LANES) : r->tails[i];
        top = V(select)(V(eq)(x, V(set1)(row_max)), class, top);
    }
    return top;
}

/* Sets the labels, and the logits at the labels. Those of index labels were looked up before; those of targets are
 * looked up here. */
SIMD_INLINE void T(rank_labels)(T(batch) * r, real *label_logit)
{
    const softxent_block *b = r->call->b;
    const int type = r->kind.type;
    V(store)(label_logit, r->sample.label_logit);
    r->label = r->targets.label;
    for (int i = 0; i < r->targets.n_samples && has_target(b); ++i) {
        r->label = r->target_label, r->target_label[i] = LABEL_IGNORED;
        if (!T(is_counted)(r, i)) continue;
        K(target_labels)(b, r->targets.begin + i, 1, 1, &r->target_label[i]);
        label_logit[i] = T(element)(T(logits_of)(r, i, type), type, r->label[i] < 0 ? 0 : (ptrdiff_t)r->label[i]);
    }
}

/* Ranks row i, with a loop of its own for each element type. */
static T(rank_sums) K(rank_row_any)(T(batch) * r, int i, int has_next, real label_logit)
{
    const ptrdiff_t n = r->call->b->n_classes, label = (ptrdiff_t)r->label[i];
    const char *z = T(logits_of)(r, i, r->kind.type);
    vec *tail = &r->tails[i];
    switch (r->kind.type) {
#if HALF_PRECISION
    case SOFTXENT_FLOAT16: return T(rank_row)(z, n, has_next, tail, label, label_logit, SOFTXENT_FLOAT16);
    case SOFTXENT_BFLOAT16: return T(rank_row)(z, n, has_next, tail, label, label_logit, SOFTXENT_BFLOAT16);
#endif
    default: return T(rank_row)(z, n, has_next, tail, label, label_logit, SOFTXENT_REAL);
    }
}

/* Returns the maxima of the rows, and stores in the batch what store_row_ranks needs. */
static vec K(rank_batch)(T(batch) * r)
{
    const ptrdiff_t n_with_next = T(rows_with_next)(r);
    vec maxima[LANES], rows[LANES], tops[LANES], n_before[LANES];
    real label_logit[LANES], row_max[LANES], top_quad[LANES];
    T(rank_labels)(r, label_logit);
    for (int i = 0; i < LANES; ++i) {
        T(rank_sums) s = {V(set1)(0), V(set1)(0), V(set1)(0), V(set1)(0)};
        if (T(is_counted)(r, i)) s = K(rank_row_any)(r, i, i < n_with_next, label_logit[i]);
        maxima[i] = rows[i] = s.row_max, tops[i] = s.top, n_before[i] = s.n_before;
    }
    const vec row_maxima = K(max_of_rows)(rows, r->at_once);
    V(store)(row_max, row_maxima);
    for (int i = 0; i < LANES; ++i)
        rows[i] = V(select)(V(eq)(maxima[i], V(set1)(row_max[i])), tops[i], V(set1)(-(real)INFINITY));
    r->top_quad = K(max_of_rows)(rows, r->at_once), r->n_before = K(lanes_of_rows)(n_before, r->at_once);
    V(store)(top_quad, r->top_quad);
    for (int i = 0; i < r->targets.n_samples; ++i)
        if (T(is_counted)(r, i))
            rows[i] = T(top_in_quad)(r, i, row_max[i], (ptrdiff_t)-top_quad[i] * QUAD * LANES, r->kind.type);
    r->top = K(max_of_rows)(rows, r->at_once);
    return row_maxima;
}

/* Runs after the sums, because a nan among the logits shows up in them. Rows with a nan and rows without a finite
 * maximum look alike here, so rank_samples looks at each of them again. */
static void K(store_row_ranks)(const T(batch) * r)
{
    const softxent_block *b = r->call->b;
    const vec others = r->sample.stats.others;
    const ptrdiff_t size = QUAD * LANES;
    real n_before[LANES], quad[LANES], top[LANES], is_sure[LANES];
    V(store)(n_before, r->n_before), V(store)(quad, r->top_quad), V(store)(top, r->top);
    V(store)(is_sure, V(select)(V(eq)(others, others), V(set1)(1), V(set1)(0)));
    for (int i = 0; i < r->targets.n_samples; ++i) {
        const ptrdiff_t sample = r->targets.begin + i;
        const int64_t label = r->label[i];
        if (label == LABEL_IGNORED)
            T(store_rank)(b, sample, -1, -1);
        else if (is_sure[i] == 0 || label < 0)
            K(rank_samples)(b, sample, 1, &label, 1);
        else
            T(store_rank)(b, sample, label / size * size + (int64_t)n_before[i],
                          (int64_t)-quad[i] * size - (int64_t)top[i]);
    }
}

/* ---- Second sweep: the sums -------------------------------------------------------------------------------------- */

/* A row in the second or third sweep. The fields are local copies, because a compiler assumes that a vector store may
 * change anything else. */
typedef struct {
    ptrdiff_t n_classes, target_stride, out_stride; /* strides of a class, in elements */
    int target_type, accumulate;
    const real *class_weight;
    vec share, keep; /* what smoothing gives to each class, and the factor of the target, 1 - e */
    ptrdiff_t z_step, target_step, out_step; /* bytes to the next row */
    const char *z, *target;
    char *out;
    real *exps; /* in the output or in the buffer */
    ptrdiff_t to_next_z,
        to_next_out; /* bytes to what is prefetched; 0 if rows are long, so that nothing new is prefetched */
    vec *tail;
    T(shift) shift;
    T(factors) factors;
    vec row_max, log_sum, excess;
} T(row);

/* A vector of logits, -inf beyond the last class. */
SIMD_INLINE vec T(row_load)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, const int type)
{
    return left >= LANES ? T(load_vector)(row->z + k * T(size_of_element)(type), type) : *row->tail;
}

/* The target's density q, without what an index label adds. Beyond the last class q is 0. Counts bad entries of the
 * target. */
SIMD_INLINE vec T(density_at)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, vec *n_bad)
{
    const real *w = row->class_weight;
    vec q = row->share;
    if (row->target) {
        const char *target = row->target + k * row->target_stride * T(size_of_element)(row->target_type);
        const vec t = T(load_any)(target, row->target_type, row->target_stride, left);
        T(count_bad)(n_bad, t);
        q = T(smoothed)(t, row->keep, q);
    }
    if (w) q = V(mul)(q, T(load_any)((const char *)(w + k), SOFTXENT_REAL, 1, left));
    return left >= LANES ? q : T(first_lanes)(q, left, 0);
}

SIMD_INLINE void T(row_term)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, const row_kind kind, const int near,
                             T(partial_sums) * partial, vec *n_max)
{
    const vec z = T(row_load)(row, k, left, kind.type), m = row->row_max;
    vec e, below;
    if (kind.target_kind == SMOOTHED || kind.target_kind == DENSE) {
        /* beyond the last class z is -inf, but m - z must be 0, so that it adds nothing */
        below = left >= LANES ? V(sub)(m, z) : T(first_lanes)(V(sub)(m, z), left, 0);
        const vec q = kind.target_kind == DENSE ? T(density_at)(row, k, left, &partial->n_bad) : m;
        T(add_target)(partial, V(eq)(z, m), below, q, kind.target_kind);
    }
    if (kind.target_kind == ITSELF)
        e = T(depth_term)(z, m, row->shift, near, &partial->others, n_max, &partial->depth, &below);
    else
        e = T(term)(z, m, row->shift, near, &partial->others, n_max);
    if (kind.output != STORED) return;
    if (kind.target_kind != INDEX && kind.target_kind != ITSELF) e = T(with_top)(e, z, m, row->shift.top);
    if (left >= LANES)
        V(store)(row->exps + k, e);
    else
        *row->tail = e;
}

/* Prefetches `classes` logits of the next batch, from class k on, and its output, while the exps of this row are
 * computed. They go to the second-level cache, which holds both batches if the rows are not too long. */
SIMD_INLINE void T(prefetch_next)(const T(row) * row, ptrdiff_t k, ptrdiff_t classes, const row_kind kind)
{
    const ptrdiff_t size = T(size_of_element)(kind.type), lines = T(size_of_element)(kind.out_type) / size;
    UNROLL_4
    for (ptrdiff_t line = 0; line < classes * size; line += CACHE_LINE) {
        PREFETCH(row->z + row->to_next_z + k * size + line);
        for (ptrdiff_t i = 0; i < lines && kind.output == STORED; ++i)
            PREFETCH_TO_WRITE(row->out + row->to_next_out + lines * (k * size + line) + i * CACHE_LINE);
    }
}

/* Partial sums of four vectors are formed first, because each compensated addition takes four operations. */
SIMD_INLINE T(sums) T(sum_row)(const T(row) * row, const row_kind kind, const int near, const int unrolled)
{
    const ptrdiff_t n = row->n_classes;
    T(sums) s = T(no_sums)();
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES) {
        T(partial_sums) partial = T(no_partial_sums)();
        T(prefetch_next)(row, k, 4 * LANES, kind);
        if (unrolled) {
            UNROLL
            for (int j = 0; j < 4; ++j) T(row_term)(row, k + j * LANES, LANES, kind, near, &partial, &s.n_max);
        } else {
            for (int j = 0; j < 4; ++j) T(row_term)(row, k + j * LANES, LANES, kind, near, &partial, &s.n_max);
        }
        T(add_partial_sums)(&s, partial, kind.target_kind);
    }
    T(partial_sums) last = T(no_partial_sums)();
    T(prefetch_next)(row, k, n - k, kind);
    for (; k + LANES <= n; k += LANES) T(row_term)(row, k, LANES, kind, near, &last, &s.n_max);
    if (k < n) T(row_term)(row, k, n - k, kind, near, &last, &s.n_max);
    T(add_partial_sums)(&s, last, kind.target_kind);
    return s;
}

/* What all rows of a batch share, with pointers to the first row. row_of moves a copy of it to row i. */
SIMD_INLINE T(row) T(first_row)(const T(batch) * r, const row_kind kind)
{
    const softxent_block *b = r->call->b;
    const ptrdiff_t size = T(size_of_element)(kind.type), target_size = T(size_of_element)(b->target_type);
    const int further = r->has_prefetch ? r->at_once : 0;
    T(row) row = {0};
    row.n_classes = b->n_classes, row.target_stride = b->target_class_stride, row.out_stride = b->out_class_stride;
    row.target_type = b->target_type, row.accumulate = b->accumulate;
    row.class_weight = (const real *)r->call->o.class_weight, row.share = r->sample.share;
    row.keep = V(set1)((real)(1 - r->call->o.label_smoothing));
    row.z = T(logits_of)(r, 0, kind.type), row.z_step = b->logits_sample_stride * size;
    row.to_next_z = further * row.z_step, row.target_step = b->target_sample_stride * target_size;
    if (b->target) row.target = (const char *)b->target + r->targets.begin * row.target_step;
    if (kind.output == NO_OUTPUT) return row;
    row.out = T(out_of)(r, 0, kind.out_type), row.out_step = b->out_sample_stride * T(size_of_element)(kind.out_type);
    row.to_next_out = further * row.out_step;
    return row;
}

SIMD_INLINE T(row) T(row_of)(const T(row) * first, T(batch) * r, int i, const row_kind kind)
{
    const T(row_scalars) *lanes = &r->lanes;
    T(row) row = *first;
    row.z += i * row.z_step, row.tail = &r->tails[i];
    row.shift.base = V(set1)(lanes->base[i]), row.shift.rounder = V(set1)(lanes->rounder[i]);
    row.shift.floor = V(set1)(lanes->floor[i]), row.shift.top = V(set1)(lanes->top[i]);
    row.row_max = V(set1)(lanes->row_max[i]);
    if (row.target) row.target += i * row.target_step;
    if (kind.output == NO_OUTPUT) return row;
    row.out += i * row.out_step;
    row.exps = !kind.is_generic && kind.out_type == SOFTXENT_REAL
                   ? (real *)(void *)row.out
                   : (real *)(r->exps + i * ((row.n_classes + LANES - 1) / LANES));
    return row;
}

SIMD_INLINE void T(keep_sums)(T(batch) * r, int i, T(sums) s, const softxent_target_kind target_kind)
{
    r->others[i] = s.others, r->n_max[i] = s.n_max;
    if (target_kind == ITSELF) r->depth[i] = s.depth;
    if (target_kind == SMOOTHED || target_kind == DENSE) r->target_cost[i] = s.target_cost;
    if (target_kind == DENSE) r->top_q[i] = s.top_q, r->others_q[i] = s.others_q, r->n_bad[i] = s.n_bad;
}

/* Rows whose base is 0 have a loop of their own, because it has one subtraction less. That matters where the exps are
 * most of the work. */
SIMD_INLINE void T(sum_batch)(T(batch) * r, const row_kind kind, const int unrolled)
{
    const int has_near = unrolled && kind.target_kind != DENSE && kind.type == SOFTXENT_REAL;
    const T(row) first = T(first_row)(r, kind);
    for (int i = 0; i < r->targets.n_samples; ++i) {
        if (!T(is_counted)(r, i)) continue;
        const T(row) row = T(row_of)(&first, r, i, kind);
        if (has_near && r->lanes.base[i] == 0)
            T(keep_sums)(r, i, T(sum_row)(&row, kind, 1, 1), kind.target_kind);
        else
            T(keep_sums)(r, i, T(sum_row)(&row, kind, 0, unrolled && kind.target_kind != SMOOTHED), kind.target_kind);
    }
}

static void K(sum_any)(T(batch) * r) { T(sum_batch)(r, r->kind, 0); }

SIMD_INLINE void T(prefetch_masses)(const softxent_block *b, ptrdiff_t sample)
{
    const ptrdiff_t size = (ptrdiff_t)1 << b->label_type % 4, first = sample * b->masses_stride;
    for (ptrdiff_t i = 0; i < b->n_masses * size; i += CACHE_LINE)
        PREFETCH((const char *)b->classes + first * size + i);
    for (ptrdiff_t i = 0; i < b->n_masses; i += CACHE_LINE / (ptrdiff_t)sizeof(real))
        PREFETCH((const real *)b->masses + first + i);
}

/* Copies the entries of a row's sparse target: classes, q without the class weights, and logits. Padding becomes the
 * first class, with q = 0. Each entry is read once. Returns whether all are good. The types are those of the
 * block. */
SIMD_INLINE int T(copy_entries)(T(batch) * r, int i, const int label_type, const int type)
{
    const softxent_block *b = r->call->b;
    const ptrdiff_t n = b->n_masses, n_classes = b->n_classes, first = (r->targets.begin + i) * b->masses_stride;
    const void *classes = b->classes;
    const char *z = T(logits_of)(r, i, type);
    const volatile real *mass = (const real *)b->masses + first;
    const real keep = (real)(1 - r->call->o.label_smoothing);
    ptrdiff_t *class = r->masses.class[i], least = 0;
    real *q = r->masses.q[i], *logit = r->masses.logit[i];
    int n_bad = 0;
    for (ptrdiff_t j = 0; j < n; ++j) {
        const ptrdiff_t given = sparse_class(label_value(classes, label_type, first + j), label_type, n_classes);
        const ptrdiff_t k = given < 0 ? 0 : given;
        const real t = mass[j];
        least = given < least ? given : least;
        n_bad += !(t >= 0) & (given >= 0);
        q[j] = given < 0 ? 0 : t * keep, class[j] = k, logit[j] = T(element)(z, type, k);
    }
    return least > LABEL_BAD && n_bad == 0;
}

/* Copies a row's sparse target. Of a row that does not count, only the classes are looked at: so do all kernels. */
static int K(copy_masses)(T(batch) * r, int i)
{
    const softxent_block *b = r->call->b;
    const real *w = (const real *)r->call->o.class_weight;
    const int is_usual = b->label_type == SOFTXENT_INT64 && r->kind.type == SOFTXENT_REAL;
    if (!T(is_counted)(r, i)) return K(has_good_masses)(b, r->targets.begin + i);
    T(prefetch_masses)(b, r->targets.begin + i + r->at_once);
    const int is_good = is_usual ? T(copy_entries)(r, i, SOFTXENT_INT64, SOFTXENT_REAL)
                                 : T(copy_entries)(r, i, b->label_type, r->kind.type);
    for (ptrdiff_t j = 0; j < b->n_masses && w; ++j) r->masses.q[i][j] *= w[r->masses.class[i][j]];
    return is_good;
}

/* Sums the entries of a row's sparse target, lane by lane, once its maximum is known. */
SIMD_INLINE void T(sum_masses)(T(masses) * masses, int i, ptrdiff_t n, vec row_max)
{
    const vec zero = V(set1)(0);
    vec cost = zero, top_q = zero, others_q = zero;
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const vec q = T(first_lanes)(V(load)(masses->q[i] + j), n - j, 0);
        const vec logit = T(first_lanes)(V(load)(masses->logit[i] + j), n - j, 0);
        const mask is_max = V(eq)(logit, row_max);
        cost = V(add)(cost, T(cost)(logit, q, row_max));
        top_q = V(add_where)(is_max, top_q, q), others_q = V(add_unless)(is_max, others_q, q);
    }
    masses->cost[i] = cost, masses->top_q[i] = top_q, masses->others_q[i] = others_q;
}

/* Looks up sparse targets, before the output may overwrite the logits. The batch ends before the first bad one. All are
 * copied first, so that what is loaded in vectors was not stored just before. */
static void K(look_up_masses)(T(batch) * r)
{
    const vec zero = V(set1)(0);
    real row_max[LANES];
    V(store)(row_max, r->sample.stats.row_max);
    for (int i = 0; i < r->targets.n_samples; ++i)
        if (!K(copy_masses)(r, i)) r->targets.n_samples = i;
    for (int i = 0; i < LANES; ++i) {
        r->masses.cost[i] = r->masses.top_q[i] = r->masses.others_q[i] = zero;
        if (T(is_counted)(r, i)) T(sum_masses)(&r->masses, i, r->call->b->n_masses, V(set1)(row_max[i]));
    }
}

/* Adds the sums over a sparse target to those that smoothing has. */
SIMD_INLINE void T(add_masses)(T(batch) * r)
{
    T(sample) *s = &r->sample;
    T(masses) *masses = &r->masses;
    const vec top_q = K(lanes_of_rows)(masses->top_q, r->at_once),
              others_q = K(lanes_of_rows)(masses->others_q, r->at_once);
    s->target_cost = V(add)(s->target_cost, K(lanes_of_rows)(masses->cost, r->at_once));
    s->others_q = V(add)(s->others_q, others_q);
    s->target_mass = V(add)(s->target_mass, V(add)(top_q, others_q));
}

/* Forms the stats and the target's sums from the sums of the rows. The batch ends before the first row whose target has
 * a bad entry. */
static void K(conclude_sums)(T(batch) * r)
{
    T(sample) *sample = &r->sample;
    const softxent_target_kind target_kind = r->kind.target_kind;
    const vec zero = V(set1)(0), n_classes = V(set1)((real)r->call->b->n_classes);
    for (int i = 0; i < r->at_once; ++i)
        if (!T(is_counted)(r, i)) T(keep_sums)(r, i, T(no_sums)(), target_kind);
    for (int i = r->at_once; i < LANES; ++i) r->n_max[i] = zero;
    const vec n_max = V(select)(r->targets.counted, K(lanes_of_rows)(r->n_max, r->at_once), V(set1)(1));
    const vec others = K(sums_of_rows)(r->others, r->at_once);
    sample->stats = T(stats_of)(sample->stats.row_max, sample->shift.top, n_max, others, r->kind.op);
    sample->target_cost = sample->target_mass = sample->others_q = zero;
    if (target_kind == ITSELF)
        sample->mean_depth = V(div)(K(sums_of_rows)(r->depth, r->at_once), T(sum_exp)(sample->stats));
    if (!has_trait(r->kind.op, HAS_LOSS)) return;
    const int has_cost = target_kind == SMOOTHED || target_kind == DENSE;
    const vec target_cost = has_cost ? K(sums_of_rows)(r->target_cost, r->at_once) : zero;
    if (target_kind == DENSE) {
        for (int i = r->at_once; i < LANES; ++i) r->n_bad[i] = zero;
        r->targets.n_samples = T(before_bad)(K(lanes_of_rows)(r->n_bad, r->at_once), r->targets.n_samples);
    }
    const vec top_q = target_kind == DENSE ? K(sums_of_rows)(r->top_q, r->at_once) : zero;
    const vec others_q = target_kind == DENSE ? K(sums_of_rows)(r->others_q, r->at_once) : zero;
    const vec label_cost = T(cost)(sample->label_logit, r->targets.label_q, sample->stats.row_max);
    T(sum_targets)(sample, &r->targets, label_cost, target_cost, top_q, others_q, n_classes, target_kind);
    if (r->call->b->masses) T(add_masses)(r);
}

/* ---- Third sweep: the output ------------------------------------------------------------------------------------- */

SIMD_INLINE vec T(row_entry)(const T(row) * row, vec e, ptrdiff_t k, ptrdiff_t left, const row_kind kind)
{
    if (kind.op == OP_SOFTMAX) return T(softmax_entry)(e, row->factors);
    vec n_bad = V(set1)(0); /* counted in the second sweep */
    const vec q = kind.target_kind == DENSE ? T(density_at)(row, k, left, &n_bad) : row->share;
    const vec entry = T(gradient_entry)(e, q, row->factors, kind.target_kind);
    return kind.has_excess ? V(mul)(entry, row->excess) : entry;
}

/* The entry of the entropy's gradient. It needs the logit beside its exp. */
SIMD_INLINE vec T(entropy_entry_at)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, const row_kind kind)
{
    const ptrdiff_t size = T(size_of_element)(kind.type);
    const int has_stored_tail = kind.output == STORED && left < LANES; /* the row's tail holds exps by now */
    const vec z = has_stored_tail ? T(load_vector_till)(row->z + k * size, kind.type, left, -(real)INFINITY)
                                  : T(row_load)(row, k, left, kind.type);
    const vec x = T(shifted)(z, row->shift, 0), depth = T(depth_of)(x, row->row_max, row->shift);
    const vec e = has_stored_tail         ? *row->tail
                  : kind.output == STORED ? V(load)(row->exps + k)
                                          : T(exp_of_shifted)(x, row->shift);
    const vec entry = T(entropy_entry)(e, depth, row->factors);
    return kind.has_excess ? V(mul)(entry, row->excess) : entry;
}

SIMD_INLINE void T(put_vector)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, vec x, const row_kind kind)
{
    const ptrdiff_t stride = kind.is_generic ? row->out_stride : 1;
    char *p = row->out + k * stride * T(size_of_element)(kind.out_type);
    if (kind.is_generic) {
        if (row->accumulate) x = V(add)(T(load_any)(p, kind.out_type, stride, left), x);
        T(store_any)(p, kind.out_type, stride, left, x);
    } else if (left >= LANES) {
        T(store_vector)(p, kind.out_type, x);
    } else {
        *row->tail = x;
    }
}

/* Writes the vector of the output that starts at class k: from the exps, or for log_softmax as (z - m) - log S. */
SIMD_INLINE void T(write_vector)(const T(row) * row, ptrdiff_t k, ptrdiff_t left, const row_kind kind)
{
    vec x;
    if (kind.op == OP_ENTROPY) {
        x = T(entropy_entry_at)(row, k, left, kind);
    } else if (kind.output == STORED) {
        x = T(row_entry)(row, left >= LANES ? V(load)(row->exps + k) : *row->tail, k, left, kind);
    } else {
        const vec z = T(row_load)(row, k, left, kind.type);
        if (kind.op == OP_LOG_SOFTMAX) {
            x = V(sub)(V(sub)(z, row->row_max), row->log_sum);
        } else {
            const vec e = kind.target_kind == INDEX ? T(exp_shifted)(z, row->shift, 0)
                                                    : T(exp_with_top)(z, row->row_max, row->shift, 0);
            x = T(row_entry)(row, e, k, left, kind);
        }
    }
    T(put_vector)(row, k, left, x, kind);
}

/* Writes a row without its tail, which stays in the batch until write_tails. */
SIMD_INLINE void T(write_row)(const T(row) * first, T(batch) * r, int i, const row_kind kind, const int unrolled)
{
    const T(row_scalars) *lanes = &r->lanes;
    const ptrdiff_t n = first->n_classes;
    T(row) row = T(row_of)(first, r, i, kind);
    row.factors.scale = V(set1)(lanes->scale[i]), row.factors.least = V(set1)(lanes->least[i]);
    row.factors.top = V(set1)(lanes->top_exp[i]), row.factors.at_top = V(set1)(lanes->at_top[i]);
    row.factors.upstream = V(set1)(lanes->upstream[i]), row.log_sum = V(set1)(lanes->log_sum[i]);
    if (kind.has_excess) row.excess = V(set1)(lanes->excess[i]);
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n && unrolled; k += 4 * LANES) {
        UNROLL
        for (int j = 0; j < 4; ++j) T(write_vector)(&row, k + j * LANES, LANES, kind);
    }
    for (; k + LANES <= n; k += LANES) T(write_vector)(&row, k, LANES, kind);
    if (k < n) T(write_vector)(&row, k, n - k, kind);
}

SIMD_INLINE void T(write_batch)(T(batch) * r, const row_kind kind, const int unrolled)
{
    const T(row) first = T(first_row)(r, kind);
    for (int i = 0; i < r->targets.n_samples; ++i)
        if (T(is_counted)(r, i)) T(write_row)(&first, r, i, kind, unrolled);
}

static void K(write_any)(T(batch) * r) { T(write_batch)(r, r->kind, 0); }

/* Writes the rows of ignored samples: zeros, or nothing if the output is accumulated. */
SIMD_INLINE void T(write_zeros)(const T(batch) * r)
{
    const softxent_block *b = r->call->b;
    for (int i = 0; i < r->targets.n_samples && !b->accumulate && !r->targets.all_counted; ++i)
        for (ptrdiff_t k = 0; k < b->n_classes && !T(is_counted)(r, i); ++k)
            T(set_element)(T(out_of)(r, i, b->out_type), b->out_type, k * b->out_class_stride, 0);
}

/* ---- A batch of rows, and a block of them ------------------------------------------------------------------------ */

/* Reads the logits at the labels, before the output may overwrite the logits. */
SIMD_INLINE void T(look_up_labels)(T(batch) * r)
{
    const int type = r->kind.type;
    vec label_logit = V(set1)(0);
    for (int i = 0; i < r->targets.n_samples; ++i) {
        const ptrdiff_t y = (ptrdiff_t)r->targets.label[i];
        if (y >= 0) label_logit = T(put_lane)(label_logit, i, T(element)(T(logits_of)(r, i, type), type, y));
    }
    r->sample.label_logit = label_logit;
}

/* Writes the tails after all rows, because of store-to-load forwarding: memory that a masked store may write cannot be
 * loaded again soon, and that includes the beginning of the next row. */
SIMD_INLINE void T(write_tails)(const T(batch) * r)
{
    const softxent_block *b = r->call->b;
    const int type = r->kind.out_type, n_rows = r->targets.n_samples;
    const ptrdiff_t size = T(size_of_element)(type), left = b->n_classes % LANES, step = b->out_sample_stride * size;
    const int64_t *label = r->targets.label;
    char *end = T(out_of)(r, 0, type) + (b->n_classes - left) * size;
    for (int i = 0; i < n_rows && left; ++i)
        if (label[i] != LABEL_IGNORED) T(store_vector_till)(end + i * step, type, left, r->tails[i]);
}

/* Adds to `entries` what an accumulated output holds at the labels. */
SIMD_INLINE void T(read_entries)(const T(batch) * r, real *entries)
{
    const int type = r->kind.out_type;
    const ptrdiff_t stride = r->call->b->out_class_stride;
    for (int i = 0; i < r->targets.n_samples; ++i)
        if (r->targets.label[i] >= 0)
            entries[i] += T(element)(T(out_of)(r, i, type), type, (ptrdiff_t)r->targets.label[i] * stride);
}

/* Writes the entries at the labels, over what the third sweep has written there. */
SIMD_INLINE void T(write_entries)(const T(batch) * r, const real *entries)
{
    const int type = r->kind.out_type;
    const ptrdiff_t stride = r->call->b->out_class_stride;
    for (int i = 0; i < r->targets.n_samples; ++i)
        if (r->targets.label[i] >= 0)
            T(set_element)(T(out_of)(r, i, type), type, (ptrdiff_t)r->targets.label[i] * stride, entries[i]);
}

/* Loads from the parts of all classes what the first two sweeps would have computed, and the tails of the rows. */
SIMD_INLINE void T(load_batch_stats)(T(batch) * r)
{
    const int type = r->kind.type;
    const ptrdiff_t n = r->call->b->n_classes, left = n % LANES, begin = (n - left) * T(size_of_element)(type);
    const ptrdiff_t n_with_next = T(rows_with_next)(r);
    const T(parts) p = T(read_parts)(r->call->b, &r->targets);
    T(stats_from_parts)(&r->sample, &r->targets, p, T(shift_of)(p.row_max, r->targets.headroom), V(set1)(1));
    for (int i = 0; i < r->at_once && left; ++i)
        if (T(is_counted)(r, i))
            r->tails[i] = T(tail_of)(T(logits_of)(r, i, type) + begin, left, i < n_with_next, type);
}

/* Subtracts the entries of sparse targets from the gradient. It is whole already at a confident sample's maximum. */
static void K(write_masses)(const T(batch) * r)
{
    const softxent_block *b = r->call->b;
    const T(masses) *masses = &r->masses;
    real upstream[LANES], row_max[LANES], is_confident[LANES];
    V(store)(upstream, V(mul)(r->targets.upstream, r->targets.excess)), V(store)(row_max, r->sample.stats.row_max);
    V(store)(is_confident, V(select)(T(is_confident)(r->sample.stats), V(set1)(1), V(set1)(0)));
    for (int i = 0; i < r->targets.n_samples; ++i) {
        real *out = (real *)(void *)T(out_of)(r, i, SOFTXENT_REAL);
        for (ptrdiff_t j = 0; j < b->n_masses && T(is_counted)(r, i); ++j)
            if (is_confident[i] == 0 || masses->logit[i][j] != row_max[i])
                out[masses->class[i][j] * b->out_class_stride] -= masses->q[i][j] * upstream[i];
    }
}

typedef void T(sweep)(T(batch) *);

static void K(write_output)(T(batch) * r, T(sweep) * write)
{
    const int is_loss = has_trait(r->kind.op, HAS_GRADIENT), is_entropy = r->kind.op == OP_ENTROPY;
    const T(sample) *sample = &r->sample;
    const T(factors) x = is_loss      ? T(gradient_factors)(r->call, &r->targets, sample, r->kind.target_kind)
                         : is_entropy ? T(entropy_factors)(&r->targets, sample)
                                      : T(softmax_factors)(sample->stats);
    T(row_scalars) *lanes = &r->lanes;
    real entries[LANES] = {0};
    if (is_loss) {
        const vec entry = T(label_entry)(r->call, &r->targets, sample, x, r->kind.target_kind);
        V(store)(entries, V(mul)(entry, r->targets.excess));
    }
    V(store)(lanes->scale, x.scale), V(store)(lanes->least, x.least), V(store)(lanes->top_exp, x.top);
    V(store)(lanes->at_top, x.at_top), V(store)(lanes->upstream, x.upstream), V(store)(lanes->log_sum, sample->log_sum);
    V(store)(lanes->excess, r->targets.excess), r->kind.has_excess = (is_loss || is_entropy) && r->targets.has_excess;
    if (is_loss && r->call->b->accumulate) T(read_entries)(r, entries);
    T(write_zeros)(r);
    (r->kind.has_excess ? K(write_any) : write)(r);
    if (!r->kind.is_generic) T(write_tails)(r);
    if (is_loss) T(write_entries)(r, entries);
    if (is_loss && r->call->b->masses) K(write_masses)(r);
}

static void K(row_batch)(T(batch) * r, T(sweep) * sum, T(sweep) * write)
{
    const softxent_op op = r->kind.op;
    T(sample) *sample = &r->sample;
    T(row_scalars) *lanes = &r->lanes;
    if (op == OP_FINISH) {
        T(load_batch_stats)(r);
    } else {
        if (op != OP_RANK) sample->stats.row_max = K(max_of_batch_any)(r);
        T(look_up_labels)(r);
        if (op == OP_RANK) sample->stats.row_max = K(rank_batch)(r);
        if (r->call->b->masses) K(look_up_masses)(r);
        sample->shift = T(shift_of)(sample->stats.row_max, r->targets.headroom);
    }
    V(store)(lanes->row_max, sample->stats.row_max), V(store)(lanes->base, sample->shift.base);
    V(store)(lanes->rounder, sample->shift.rounder), V(store)(lanes->floor, sample->shift.floor);
    V(store)(lanes->top, sample->shift.top);
    if (op != OP_FINISH) sum(r), K(conclude_sums)(r);
    if (r->targets.n_samples == 0) return;
    T(set_lse)(sample, NULL);
    T(store_results)(r->call, &r->targets, sample, op);
    if (op == OP_RANK) K(store_row_ranks)(r);
    if (r->kind.output != NO_OUTPUT) K(write_output)(r, write);
}

/* Computes samples until the block ends, or before the first bad label or target. Returns how many. */
static ptrdiff_t K(row_block)(const softxent_block *b, row_kind kind, T(sweep) * sum, T(sweep) * write)
{
    T(call) call = K(call_of)(b);
    T(batch) r;
    call.checks_masses_later = b->masses != NULL;
    r.call = &call, r.kind = kind, r.at_once = T(rows_at_once)(b->n_classes);
    r.has_prefetch = kind.output == NO_OUTPUT || b->n_classes <= PREFETCHED_BYTES / T(size_of_element)(kind.out_type);
    T(labels) labels;
    T(no_labels)(&labels), T(no_targets)(&r.targets);
    r.sample.share = T(smoothed_share)(&call);
    for (ptrdiff_t begin = 0; begin < b->n_samples; begin += r.at_once) {
        const int n_rows = (int)(b->n_samples - begin < r.at_once ? b->n_samples - begin : r.at_once);
        K(load_targets)(&r.targets, &labels, &call, begin, n_rows, 0);
        if (r.targets.n_samples > 0) K(row_batch)(&r, sum, write);
        if (r.targets.n_samples < n_rows) return begin + r.targets.n_samples;
    }
    return b->n_samples;
}

/* ---- The sweeps of each kind of call ----------------------------------------------------------------------------- */

/* The sums are the same for every operation: OP_CROSS_ENTROPY stands for all. */
#define ROW_SUM(name, output, type, out_type, target_kind)                                                             \
      static void K(name)(T(batch) * r)                                                                                \
      {                                                                                                                \
          T(sum_batch)(r, (row_kind){OP_CROSS_ENTROPY, output, type, out_type, target_kind, 0, 0}, 1);                 \
      }
ROW_SUM(sum_rows, NO_OUTPUT, SOFTXENT_REAL, SOFTXENT_REAL, INDEX)
ROW_SUM(sum_rows_smoothed, NO_OUTPUT, SOFTXENT_REAL, SOFTXENT_REAL, SMOOTHED)
ROW_SUM(sum_and_store_sparse, STORED, SOFTXENT_REAL, SOFTXENT_REAL, SPARSE)
ROW_SUM(sum_rows_depth, NO_OUTPUT, SOFTXENT_REAL, SOFTXENT_REAL, ITSELF)
ROW_SUM(sum_and_store, STORED, SOFTXENT_REAL, SOFTXENT_REAL, INDEX)
ROW_SUM(sum_and_store_smoothed, STORED, SOFTXENT_REAL, SOFTXENT_REAL, SMOOTHED)
ROW_SUM(sum_and_store_depth, STORED, SOFTXENT_REAL, SOFTXENT_REAL, ITSELF)
/* each class takes so many operations that a branch on `output` costs nothing */
ROW_SUM(sum_rows_dense, r->kind.output, SOFTXENT_REAL, SOFTXENT_REAL, DENSE)
#if HALF_PRECISION
ROW_SUM(sum_rows_f16, NO_OUTPUT, SOFTXENT_FLOAT16, SOFTXENT_FLOAT16, INDEX)
ROW_SUM(sum_rows_bf16, NO_OUTPUT, SOFTXENT_BFLOAT16, SOFTXENT_BFLOAT16, INDEX)
ROW_SUM(sum_and_store_f16, STORED, SOFTXENT_FLOAT16, SOFTXENT_FLOAT16, INDEX)
ROW_SUM(sum_and_store_bf16, STORED, SOFTXENT_BFLOAT16, SOFTXENT_BFLOAT16, INDEX)
ROW_SUM(sum_and_store_f16_in_real, STORED, SOFTXENT_FLOAT16, SOFTXENT_REAL, INDEX)
ROW_SUM(sum_and_store_bf16_in_real, STORED, SOFTXENT_BFLOAT16, SOFTXENT_REAL, INDEX)
#endif
#undef ROW_SUM

#define ROW_WRITE(name, op, output, type, out_type, target_kind)                                                       \
      static void K(name)(T(batch) * r)                                                                                \
      {                                                                                                                \
          T(write_batch)(r, (row_kind){op, output, type, out_type, target_kind, 0, 0}, 1);                             \
      }
ROW_WRITE(write_gradient_at_label, OP_CROSS_ENTROPY, STORED, SOFTXENT_REAL, SOFTXENT_REAL, INDEX)
ROW_WRITE(write_gradient_smoothed, OP_CROSS_ENTROPY, STORED, SOFTXENT_REAL, SOFTXENT_REAL, SMOOTHED)
ROW_WRITE(write_gradient_dense, OP_CROSS_ENTROPY, STORED, SOFTXENT_REAL, SOFTXENT_REAL, DENSE)
ROW_WRITE(write_entropy_rows, OP_ENTROPY, STORED, SOFTXENT_REAL, SOFTXENT_REAL, ITSELF)
ROW_WRITE(write_entropy_rows_in_place, OP_ENTROPY, RECOMPUTED, SOFTXENT_REAL, SOFTXENT_REAL, ITSELF)
ROW_WRITE(write_finish, OP_FINISH, RECOMPUTED, SOFTXENT_REAL, SOFTXENT_REAL, INDEX)
ROW_WRITE(write_softmax_rows, OP_SOFTMAX, STORED, SOFTXENT_REAL, SOFTXENT_REAL, INDEX)
ROW_WRITE(write_log_softmax_rows, OP_LOG_SOFTMAX, RECOMPUTED, SOFTXENT_REAL, SOFTXENT_REAL, INDEX)
#if HALF_PRECISION
ROW_WRITE(write_gradient_f16, OP_CROSS_ENTROPY, STORED, SOFTXENT_FLOAT16, SOFTXENT_FLOAT16, INDEX)
ROW_WRITE(write_gradient_bf16, OP_CROSS_ENTROPY, STORED, SOFTXENT_BFLOAT16, SOFTXENT_BFLOAT16, INDEX)
ROW_WRITE(write_gradient_f16_in_real, OP_CROSS_ENTROPY, STORED, SOFTXENT_FLOAT16, SOFTXENT_REAL, INDEX)
ROW_WRITE(write_gradient_bf16_in_real, OP_CROSS_ENTROPY, STORED, SOFTXENT_BFLOAT16, SOFTXENT_REAL, INDEX)
ROW_WRITE(write_long_f16, OP_CROSS_ENTROPY, RECOMPUTED, SOFTXENT_FLOAT16, SOFTXENT_FLOAT16, INDEX)
ROW_WRITE(write_long_bf16, OP_CROSS_ENTROPY, RECOMPUTED, SOFTXENT_BFLOAT16, SOFTXENT_BFLOAT16, INDEX)
#endif
#undef ROW_WRITE

/* ---- Which of them a call takes ---------------------------------------------------------------------------------- */

static ptrdiff_t K(row_run)(const softxent_block *b, softxent_op op)
{
    static T(sweep) *const sums[][5] = {
        {K(sum_rows), K(sum_rows_smoothed), K(sum_rows_dense), K(sum_rows_depth), K(sum_rows)},
        {K(sum_and_store), K(sum_and_store_smoothed), K(sum_rows_dense), K(sum_and_store_depth),
         K(sum_and_store_sparse)},
    };
    static T(sweep) *const gradients[] = {K(write_gradient_at_label), K(write_gradient_smoothed),
                                          K(write_gradient_dense), NULL, K(write_gradient_smoothed)};
    static T(sweep) *const entropies[] = {K(write_entropy_rows_in_place), K(write_entropy_rows)};
    const int is_loss = has_trait(op, HAS_LOSS), has_output = b->out != NULL;
    const int is_usual = !has_output || (b->out_class_stride == 1 && !b->accumulate);
    const int out_type = has_output ? b->out_type : b->logits_type;
    softxent_target_kind target_kind = target_kind_of(b, op);
    if (is_loss && b->masses) target_kind = is_smooth(b->options) ? SMOOTHED : SPARSE;
    const int has_own_code = is_usual && (b->logits_type == SOFTXENT_REAL || (is_loss && target_kind == INDEX));
    const int can_store = T(is_short)(b->n_classes) || (has_own_code && out_type == SOFTXENT_REAL);
    const int with_output = can_store && may_store_exps(b, op) ? STORED : RECOMPUTED;
    row_kind kind = {op, has_output ? with_output : NO_OUTPUT, b->logits_type, out_type, target_kind, 0, 0};
    if (is_usual && b->logits_type == SOFTXENT_REAL) {
        T(sweep) *const write = op == OP_CROSS_ENTROPY ? gradients[kind.target_kind]
                                : op == OP_SOFTMAX     ? K(write_softmax_rows)
                                : op == OP_LOG_SOFTMAX ? K(write_log_softmax_rows)
                                : op == OP_ENTROPY     ? entropies[kind.output == STORED]
                                                       : K(write_finish); /* or an operation without output */
        return K(row_block)(b, kind, sums[kind.output == STORED][kind.target_kind], write);
    }
#if HALF_PRECISION
    static T(sweep) *const half_sums[][3] = {
        {K(sum_rows_f16), K(sum_and_store_f16), K(sum_and_store_f16_in_real)},
        {K(sum_rows_bf16), K(sum_and_store_bf16), K(sum_and_store_bf16_in_real)},
    };
    static T(sweep) *const half_gradients[][3] = {
        {K(write_long_f16), K(write_gradient_f16), K(write_gradient_f16_in_real)},
        {K(write_long_bf16), K(write_gradient_bf16), K(write_gradient_bf16_in_real)},
    };
    const int where = out_type == SOFTXENT_REAL ? 2 : kind.output == STORED;
    const int is_bf16 = b->logits_type == SOFTXENT_BFLOAT16;
    if (has_own_code) return K(row_block)(b, kind, half_sums[is_bf16][where], half_gradients[is_bf16][where]);
#endif
    kind.is_generic = 1;
    return K(row_block)(b, kind, K(sum_any), K(write_any));
}
