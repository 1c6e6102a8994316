/* general_kernel.h - template: everything that the other kernels do not handle: `where`, softcap, temperature and
 * derivatives. It works in rows (one sample, its classes in the lanes) or in lanes (LANES samples): see tiles.h.
 *
 * The target is its density q_k = w_k t_k, with label smoothing. q is formed a tile at a time and stored nowhere; what
 * an index label adds is added separately, at the label. There are three sweeps, as in the plain kernels: the maximum
 * of the logits, after softcap and `where`; the sums of exps, of q and of the direction; the output. A sample whose
 * classes fit in one tile is loaded once (resident). For others the exps are stored in the output if it can hold them,
 * and are computed again if it cannot. */

/* The samples at hand (a group), and what the call asks for. Vectors have one lane for each sample; in rows the one
 * sample is in all lanes. */
typedef struct {
    const softxent_block *b;
    T(call) call;
    softxent_op op;
    int in_rows, resident, dense; /* dense: q has entries in other classes than the label's */
    int has_depth;                /* whether sum p (m - z) is wanted */
    ptrdiff_t n_vectors;
    T(inverses) inverse; /* of the temperatures */
    T(view) logits, target, where, direction, out, hess;
    T(labels) labels;
    T(targets) targets;     /* samples that do not count are computed with logits 0 and all classes allowed */
    vec label_logit, share; /* share: what smoothing gives to each allowed class */
} T(general);

/* The results of the first two sweeps. */
typedef struct {
    T(sample) sample; /* sample.shift is not used: t.shift is */
    T(tempered) t;
    vec direction_at_top, moment;
    ptrdiff_t label[LANES]; /* the class that gets the label's q; -1 at a confident sample's maximum, which has it */
} T(general_stats);

/* ---- Tiles as the sweeps want them ------------------------------------------------------------------------------- */

SIMD_INLINE int T(vectors_from)(const T(general) * g, ptrdiff_t from)
{
    return (int)(g->n_vectors - from < TILE ? g->n_vectors - from : TILE);
}

/* The class in a lane of a vector. */
SIMD_INLINE ptrdiff_t T(class_in)(const T(general) * g, ptrdiff_t vector, int lane)
{
    return g->in_rows ? vector * LANES + lane : vector;
}

/* Replaces the entries of the classes that `where` removes. */
SIMD_INLINE void T(remove_classes)(const T(general) * g, vec *tile, ptrdiff_t from, int vectors, real replacement)
{
    if (!g->b->where) return;
    vec allowed[TILE];
    K(load_tile)(allowed, &g->where, from, vectors, 0);
    for (int c = 0; c < vectors; ++c) tile[c] = V(select)(V(eq)(allowed[c], V(set1)(0)), V(set1)(replacement), tile[c]);
}

/* The logits before the temperature: softcapped, -inf where removed, 0 where ignored. */
static void K(load_logits)(const T(general) * g, const T(view) * logits, vec *tile, ptrdiff_t from)
{
    const int vectors = T(vectors_from)(g, from);
    K(load_tile)(tile, logits, from, vectors, g->in_rows ? -(real)INFINITY : 0);
    if (g->call.o.softcap > 0)
        for (int c = 0; c < vectors; ++c) {
            vec slope;
            tile[c] = T(capped)(tile[c], V(set1)((real)g->call.o.softcap), &slope);
        }
    T(remove_classes)(g, tile, from, vectors, -(real)INFINITY);
    for (int c = 0; c < vectors && !g->targets.all_counted; ++c) tile[c] = T(if_counted)(&g->targets, tile[c]);
}

/* The direction, but 0 for removed classes and ignored samples, which have no derivative. */
static void K(load_direction)(const T(general) * g, vec *tile, ptrdiff_t from)
{
    const int vectors = T(vectors_from)(g, from);
    K(load_tile)(tile, &g->direction, from, vectors, 0);
    T(remove_classes)(g, tile, from, vectors, 0);
    for (int c = 0; c < vectors && !g->targets.all_counted; ++c) tile[c] = T(if_counted)(&g->targets, tile[c]);
}

/* The target's density q, without what an index label adds; for OP_LOG_VJP the direction. Counts bad entries of the
 * target. */
static void K(load_density)(const T(general) * g, vec *q, ptrdiff_t from, vec *n_bad)
{
    const int vectors = T(vectors_from)(g, from);
    const vec keep = V(set1)((real)(1 - g->call.o.label_smoothing));
    for (int c = 0; c < vectors; ++c) q[c] = V(set1)(0);
    if (g->op == OP_LOG_VJP) K(load_direction)(g, q, from);
    if (has_target(g->b)) K(load_target)(g->b, &g->target, g->targets.begin, g->targets.n_samples, q, from, vectors);
    if (g->op == OP_KL) T(remove_classes)(g, q, from, vectors, 0); /* a divergence of the classes that are left */
    for (int c = 0; c < vectors; ++c) T(count_bad)(n_bad, q[c]);
    if (g->call.o.label_smoothing > 0) {
        vec share[TILE];
        real lanes[LANES];
        V(store)(lanes, g->share);
        for (int c = 0; c < vectors; ++c) {
            const ptrdiff_t left = g->b->n_classes - T(class_in)(g, from + c, 0);
            share[c] = g->in_rows && left < LANES ? V(load_till)(lanes, left, 0) : g->share;
        }
        T(remove_classes)(g, share, from, vectors, 0);
        for (int c = 0; c < vectors; ++c) q[c] = T(smoothed)(q[c], keep, share[c]);
    }
    const real *w = (const real *)g->call.o.class_weight;
    for (int c = 0; c < vectors && w; ++c) {
        const ptrdiff_t k = T(class_in)(g, from + c, 0);
        const vec weight = g->in_rows ? V(load_till)(w + k, g->b->n_classes - k, 0) : V(set1)(w[k]);
        q[c] = V(mul)(q[c], weight);
    }
}

/* ---- The samples of a group -------------------------------------------------------------------------------------- */

SIMD_INLINE T(view) T(view_of)(const T(general) * g, const void *data, int type, ptrdiff_t sample_stride,
                               ptrdiff_t class_stride, ptrdiff_t begin)
{
    const char *first = data ? (const char *)data + begin * sample_stride * T(size_of_element)(type) : NULL;
    return g->in_rows
               ? T(rows_view)(first, type, class_stride, g->b->n_classes)
               : T(lanes_view)(first, type, sample_stride, class_stride, g->targets.n_samples, g->targets.n_samples);
}

/* The logit at a label, as load_logits has it. */
SIMD_INLINE real T(logit_at)(const T(general) * g, ptrdiff_t sample, ptrdiff_t class)
{
    const softxent_block *b = g->b;
    if (b->where && !b->where[sample * b->where_sample_stride + class * b->where_class_stride]) return -(real)INFINITY;
    const ptrdiff_t i = sample * b->logits_sample_stride + class * b->logits_class_stride;
    const real z = T(element)((const char *)b->logits, b->logits_type, i);
    vec slope;
    return g->call.o.softcap > 0 ? V(first)(T(capped)(V(set1)(z), V(set1)((real)g->call.o.softcap), &slope)) : z;
}

/* The temperatures of the samples at hand, if they have temperatures of their own. */
static void K(load_temperatures)(T(general) * g)
{
    const softxent_block *b = g->b;
    real temperature[LANES], scale[LANES], scale_low[LANES], unit[LANES];
    for (int i = 0; i < LANES; ++i) {
        const int source = g->in_rows || i >= g->targets.n_samples ? 0 : i;
        const T(inverse) x = T(inverse_of)(b->temperatures[(g->targets.begin + source) * b->temperatures_stride]);
        temperature[i] = x.temperature, scale[i] = x.scale, scale_low[i] = x.scale_low, unit[i] = x.unit;
    }
    const T(inverses) own = {V(load)(temperature), V(load)(scale), V(load)(scale_low), V(load)(unit), 0};
    g->inverse = own;
}

/* Starts the group from `begin` on: up to n_samples samples, but only to the first label that is no class. */
static void K(start_group)(T(general) * g, ptrdiff_t begin, int n_samples)
{
    const softxent_block *b = g->b;
    real label_logit[LANES] = {0};
    K(load_targets)(&g->targets, &g->labels, &g->call, begin, n_samples, g->in_rows);
    if (g->targets.n_samples == 0) return;
    if (b->temperatures) K(load_temperatures)(g);
    for (int i = 0; i < LANES; ++i) {
        const int source = g->in_rows ? 0 : i;
        if (g->op != OP_FINISH && source < g->targets.n_samples && g->targets.label[source] >= 0)
            label_logit[i] = T(logit_at)(g, begin + source, (ptrdiff_t)g->targets.label[source]);
    }
    g->label_logit = V(load)(label_logit);

    const int out_type = b->out_type;
    g->logits = T(view_of)(g, b->logits, b->logits_type, b->logits_sample_stride, b->logits_class_stride, begin);
    g->target = T(view_of)(g, b->target, b->target_type, b->target_sample_stride, b->target_class_stride, begin);
    g->where = T(view_of)(g, b->where, BOOLS, b->where_sample_stride, b->where_class_stride, begin);
    g->direction =
        T(view_of)(g, b->direction, b->direction_type, b->direction_sample_stride, b->direction_class_stride, begin);
    g->out = T(view_of)(g, b->out, out_type, b->out_sample_stride, b->out_class_stride, begin);
    g->hess = T(view_of)(g, b->hess, out_type, b->hess_sample_stride, b->hess_class_stride, begin);
}

/* ---- First sweep: the maximum, the direction there, and how many classes are allowed ----------------------------- */

/* In rows: the maximum over all lanes, and the value of at_max in the first lane that has the maximum. */
SIMD_INLINE void T(across_max)(vec *row_max, vec *at_max)
{
    real max[LANES], at[LANES];
    V(store)(max, *row_max), V(store)(at, *at_max);
    const real whole = V(hmax)(*row_max);
    int lane = 0;
    while (lane < LANES - 1 && max[lane] != whole) ++lane;
    *row_max = V(set1)(whole), *at_max = V(set1)(at[lane]);
}

SIMD_INLINE vec T(total)(const T(general) * g, T(compensated) c) { return g->in_rows ? T(across)(c) : T(value)(c); }

/* Afterwards a resident tile holds the logits. */
static void K(general_max)(T(general) * g, vec *tile, T(general_stats) * stats)
{
    vec row_max = V(set1)(-(real)INFINITY), at_max = V(set1)(0);
    for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
        const int vectors = T(vectors_from)(g, from);
        K(load_logits)(g, &g->logits, tile, from);
        if (g->b->direction) {
            vec v[TILE];
            K(load_direction)(g, v, from);
            for (int c = 0; c < vectors; ++c) {
                at_max = V(select)(V(lt)(row_max, tile[c]), v[c], at_max);
                row_max = V(max)(tile[c], row_max);
            }
        } else {
            UNROLL_4
            for (int c = 0; c < vectors; ++c) row_max = V(max)(tile[c], row_max);
        }
    }
    if (g->in_rows) T(across_max)(&row_max, &at_max);
    stats->sample.stats.row_max = row_max, stats->direction_at_top = at_max;
}

/* What smoothing gives to each allowed class. A sample of which no class is allowed counts as having one, so that
 * nothing is divided by 0. */
static void K(share_smoothing)(T(general) * g)
{
    const vec e = V(set1)((real)g->call.o.label_smoothing), one = V(set1)(1);
    vec n_allowed = V(set1)((real)g->b->n_classes);
    if (g->b->where) {
        T(compensated) sum = T(zero)();
        for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
            vec allowed[TILE];
            const int vectors = T(vectors_from)(g, from);
            K(load_tile)(allowed, &g->where, from, vectors, 0);
            for (int c = 0; c < vectors; ++c) T(accumulate)(&sum, allowed[c]);
        }
        n_allowed = V(max)(T(total)(g, sum), one);
    }
    g->share = V(div)(e, n_allowed);
}

/* ---- Second sweep: the sums -------------------------------------------------------------------------------------- */

/* The exp of (z - m) / T, which is exactly `top` at the maximum. */
SIMD_INLINE vec T(general_exp)(vec z, const T(general_stats) * stats)
{
    return T(with_top)(T(exp_tempered)(z, &stats->t), z, stats->sample.stats.row_max, stats->t.shift.top);
}

/* Replaces a logit by its exp, and adds it to the sums. */
SIMD_INLINE void T(general_term)(vec *z, vec q, const T(general_stats) * stats, softxent_target_kind target_kind,
                                 int has_depth, T(partial_sums) * partial, vec *n_max)
{
    const mask is_max = V(eq)(*z, stats->sample.stats.row_max);
    const vec below = T(units_below)(stats->sample.stats.row_max, *z, &stats->t);
    if (target_kind == DENSE) T(add_target)(partial, is_max, below, q, DENSE);
    *z = T(general_exp)(*z, stats);
    T(count)(is_max, *z, &partial->others, n_max);
    if (has_depth) partial->depth = V(add_unless)(V(eq)(*z, V(set1)(0)), partial->depth, V(mul)(*z, below));
}

/* The maxima are counted by tile, because a float counts only up to 2^24. */
SIMD_INLINE void T(general_terms)(vec *tile, const vec *q, int vectors, const T(general_stats) * stats,
                                  softxent_target_kind target_kind, int has_depth, T(sums) * sums,
                                  T(compensated) * n_max)
{
    vec n_max_of_tile = V(set1)(0);
    int c = 0;
    for (; c + 4 <= vectors; c += 4) {
        T(partial_sums) partial = T(no_partial_sums)();
        for (int i = c; i < c + 4; ++i)
            T(general_term)(tile + i, q[i], stats, target_kind, has_depth, &partial, &n_max_of_tile);
        T(add_partial_sums)(sums, partial, target_kind);
        if (has_depth) T(accumulate)(&sums->depth, partial.depth);
    }
    T(partial_sums) last = T(no_partial_sums)();
    for (; c < vectors; ++c) T(general_term)(tile + c, q[c], stats, target_kind, has_depth, &last, &n_max_of_tile);
    T(add_partial_sums)(sums, last, target_kind);
    if (has_depth) T(accumulate)(&sums->depth, last.depth);
    T(accumulate)(n_max, n_max_of_tile);
}

SIMD_INLINE void T(put_temperature_grad)(const softxent_block *b, const T(targets) * targets, vec grad)
{
    real lanes[LANES];
    V(store)(lanes, T(if_counted)(targets, grad));
    for (int i = 0; i < targets->n_samples; ++i)
        b->temperature_grad[(targets->begin + i) * b->temperature_grad_stride] = lanes[i];
}

/* Computes lse, the loss's target sums, and the class to which the label's q is added. */
SIMD_INLINE void T(conclude)(const T(general) * g, T(general_stats) * stats, T(sums) sums)
{
    T(sample) *s = &stats->sample;
    const vec one = V(set1)(1), zero = V(set1)(0);
    T(set_lse)(s, &stats->t);
    const vec label_logit = V(mul)(s->label_logit, stats->t.unit), row_max = V(mul)(s->stats.row_max, stats->t.unit);
    T(sum_targets)(s, &g->targets, T(cost)(label_logit, g->targets.label_q, row_max), T(total)(g, sums.target_cost),
                   T(total)(g, sums.top_q), T(total)(g, sums.others_q), zero, DENSE);
    s->target_cost = V(mul)(s->target_cost, stats->t.scale_of_unit);
    const vec is_confident = V(select)(T(is_confident)(s->stats), one, zero);
    real is_top[LANES];
    V(store)(is_top, V(select)(V(eq)(s->label_logit, s->stats.row_max), is_confident, zero));
    for (int i = 0; i < g->targets.n_samples; ++i)
        stats->label[i] = is_top[i] != 0 ? -1 : (ptrdiff_t)g->targets.label[i];
}

/* Ends the group before the first sample whose target has a bad entry. */
static void K(end_before_bad)(T(general) * g, vec n_bad)
{
    n_bad = g->in_rows ? V(set1)((real)V(hsum)(n_bad)) : T(if_counted)(&g->targets, n_bad);
    g->targets.n_samples = T(before_bad)(n_bad, g->targets.n_samples);
    if (!g->in_rows) g->out.limit = g->out.room = g->hess.limit = g->hess.room = g->targets.n_samples;
}

/* The exps and q stay in resident tiles. With `keep` the exps are stored in the output. */
static void K(general_sums)(T(general) * g, vec *tile, vec *q, int keep, T(general_stats) * stats)
{
    T(sums) sums = T(no_sums)();
    T(compensated) n_max = T(zero)(), moment = T(zero)();
    T(sample) *s = &stats->sample;
    stats->t = T(tempered_of)(s->stats.row_max, &g->inverse, g->targets.headroom);
    s->label_logit = g->label_logit;
    for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
        const int vectors = T(vectors_from)(g, from);
        if (!g->resident) K(load_logits)(g, &g->logits, tile, from);
        if (g->dense) {
            K(load_density)(g, q, from, &sums.n_bad);
            T(general_terms)(tile, q, vectors, stats, DENSE, g->has_depth, &sums, &n_max);
        } else {
            T(general_terms)(tile, tile, vectors, stats, INDEX, g->has_depth, &sums, &n_max);
        }
        if (g->b->direction) {
            vec v[TILE];
            K(load_direction)(g, v, from);
            for (int c = 0; c < vectors; ++c)
                T(accumulate)(&moment, V(mul)(tile[c], V(sub)(v[c], stats->direction_at_top)));
        }
        if (keep) K(store_tile)(tile, &g->out, from, vectors);
    }
    s->stats = T(stats_of)(s->stats.row_max, stats->t.shift.top, T(total)(g, n_max), T(total)(g, sums.others), g->op);
    stats->moment = T(total)(g, moment);
    s->mean_depth = V(mul)(V(div)(T(total)(g, sums.depth), T(sum_exp)(s->stats)), stats->t.scale_of_unit);
    if (has_target(g->b)) K(end_before_bad)(g, sums.n_bad);
    T(conclude)(g, stats, sums);
}
/* dL/dT = (W sum p depth - sum q depth) upstream + (sum p depth - m / T) lse z_upstream, with depth = (m - z) / T. */
static void K(store_temperature_grad)(const T(general) * g, const T(general_stats) * stats)
{
    const softxent_block *b = g->b;
    const T(targets) *targets = &g->targets;
    const T(sample) *s = &stats->sample;
    const vec costs = V(sub)(V(mul)(s->target_mass, s->mean_depth), s->target_cost);
    vec grad = V(mul)(costs, targets->upstream);
    if (g->call.o.z_loss > 0) {
        const vec of_lse = V(sub)(s->mean_depth, V(mul)(s->stats.row_max, stats->t.scale));
        grad = V(fma)(V(mul)(of_lse, s->lse), targets->z_upstream, grad);
    }
    T(put_temperature_grad)(b, targets, V(mul)(grad, targets->excess));
}

/* ---- Third sweep: the output ------------------------------------------------------------------------------------- */

/* The exps: resident, from the output, or computed again. */
SIMD_INLINE void T(load_exps)(const T(general) * g, vec *tile, ptrdiff_t from, int exps_in_out,
                              const T(general_stats) * stats)
{
    const int vectors = T(vectors_from)(g, from);
    if (g->resident) return;
    if (exps_in_out) {
        K(load_tile)(tile, &g->out, from, vectors, 0);
        return;
    }
    K(load_logits)(g, &g->logits, tile, from);
    for (int c = 0; c < vectors; ++c) tile[c] = T(general_exp)(tile[c], stats);
}

/* For each sample whose class is in this tile: its entry becomes `keep` times its old value, plus `value`. */
SIMD_INLINE void T(put_entries)(const T(general) * g, vec *tile, ptrdiff_t from, const ptrdiff_t *class, real keep,
                                vec value)
{
    const int vectors = T(vectors_from)(g, from);
    real added[LANES];
    V(store)(added, value);
    for (int i = 0; i < g->targets.n_samples; ++i) {
        const ptrdiff_t vector = (g->in_rows ? class[i] / LANES : class[i]) - from;
        if (class[i] >= 0 && vector >= 0 && vector < vectors)
            T(put_in_lane)(&tile[vector], g->in_rows ? (int)(class[i] % LANES) : i, keep, added[i]);
    }
}

/* h = W p (1 - p). At the maximum of a confident sample 1 - p is the sum over the other classes, because a subtraction
 * would suffer cancellation. */
SIMD_INLINE T(factors) T(hessian_factors)(const T(general) * g, const T(general_stats) * stats)
{
    const T(stats) s = stats->sample.stats;
    const vec sum_exp = T(sum_exp)(s),
              scale = V(div)(V(mul)(stats->sample.target_mass, g->targets.hess_upstream), sum_exp);
    const vec at_top = T(times_upstream)(s.others, s, V(mul)(scale, s.top), g->targets.headroom);
    const T(factors) x = {scale, T(least_scaled)(scale), T(confident_top)(s), at_top, V(set1)(0)};
    return x;
}

/* Stores derivatives. Entries that are removed or ignored are exactly 0, whatever the sample holds. */
SIMD_INLINE void T(store_derivative)(const T(general) * g, vec *tile, const T(view) * out, ptrdiff_t from,
                                     int accumulate)
{
    const int vectors = T(vectors_from)(g, from);
    T(remove_classes)(g, tile, from, vectors, 0);
    for (int c = 0; c < vectors && !g->targets.all_counted; ++c) tile[c] = T(if_counted)(&g->targets, tile[c]);
    if (accumulate) {
        vec before[TILE];
        K(load_tile)(before, out, from, vectors, 0);
        for (int c = 0; c < vectors; ++c) /* -0 of an ignored sample stays -0, as in a group where all are ignored */
            tile[c] = V(select)(g->targets.counted, V(add)(before[c], tile[c]), before[c]);
    }
    K(store_tile)(tile, out, from, vectors);
}

static void K(write_hessian)(const T(general) * g, const vec *exps, ptrdiff_t from, const T(general_stats) * stats,
                             T(factors) x)
{
    const vec one = V(set1)(1), least = V(set1)((real)1e-16);
    const int vectors = T(vectors_from)(g, from);
    const vec p_scale = V(div)(one, T(sum_exp)(stats->sample.stats));
    vec tile[TILE];
    for (int c = 0; c < vectors; ++c) {
        const vec h = V(mul)(T(scaled)(exps[c], x.scale, x.least), V(fnma)(exps[c], p_scale, one));
        tile[c] = V(select)(V(eq)(exps[c], x.top), x.at_top, h);
    }
    for (int c = 0; c < vectors && g->targets.has_excess; ++c) tile[c] = V(mul)(tile[c], g->targets.hess_excess);
    for (int c = 0; c < vectors && g->b->hess_kind == SOFTXENT_XGBOOST; ++c) tile[c] = V(max)(least, tile[c]);
    T(store_derivative)(g, tile, &g->hess, from, 0);
}

/* Multiplies by the derivative of the softcap: the gradient is with respect to the logits before the softcap. */
SIMD_INLINE void T(multiply_by_slope)(const T(general) * g, vec *tile, ptrdiff_t from)
{
    const int vectors = T(vectors_from)(g, from);
    vec z[TILE], slope;
    if (!(g->call.o.softcap > 0)) return;
    K(load_tile)(z, &g->logits, from, vectors, 0);
    for (int c = 0; c < vectors; ++c) {
        T(capped)(T(if_counted)(&g->targets, z[c]), V(set1)((real)g->call.o.softcap), &slope);
        tile[c] = V(mul)(tile[c], slope);
    }
}

static void K(write_gradient)(const T(general) * g, vec *tile, vec *q, int exps_in_out, const T(general_stats) * stats)
{
    const T(factors) hess = T(hessian_factors)(g, stats);
    const T(factors) x = T(gradient_factors)(&g->call, &g->targets, &stats->sample, DENSE);
    const vec zero = V(set1)(0), at_label = V(sub)(zero, V(mul)(g->targets.label_q, g->targets.upstream));
    vec n_bad = zero; /* counted in the second sweep */
    for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
        const int vectors = T(vectors_from)(g, from);
        T(load_exps)(g, tile, from, exps_in_out, stats);
        if (g->b->hess) K(write_hessian)(g, tile, from, stats, hess);
        if (g->dense && !g->resident) K(load_density)(g, q, from, &n_bad);
        for (int c = 0; c < vectors; ++c) tile[c] = T(gradient_entry)(tile[c], g->dense ? q[c] : zero, x, DENSE);
        if (g->b->labels) T(put_entries)(g, tile, from, stats->label, 1, at_label);
        T(multiply_by_slope)(g, tile, from);
        for (int c = 0; c < vectors && g->targets.has_excess; ++c) tile[c] = V(mul)(tile[c], g->targets.excess);
        T(store_derivative)(g, tile, &g->out, from, g->b->accumulate);
    }
}

/* out_k = p_k (v_k - sum p v): the product of v with the loss's Hessian or the softmax's Jacobian. Without the factor
 * p_k it is the product with the Jacobian of log_softmax. v is taken relative to its value at the maximum, whose p may
 * be nearly 1: so v_k - sum p v does not suffer cancellation there. */
static void K(write_product)(const T(general) * g, vec *tile, int exps_in_out, const T(general_stats) * stats)
{
    const vec sum_exp = T(sum_exp)(stats->sample.stats), mean = V(div)(stats->moment, sum_exp);
    const vec weight =
        g->op == OP_HVP ? V(mul)(stats->sample.target_mass, g->targets.hess_upstream) : g->targets.upstream;
    const vec scale = V(div)(weight, sum_exp), least = T(least_scaled)(scale);
    const vec excess = g->op == OP_HVP ? g->targets.hess_excess : g->targets.excess;
    for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
        const int vectors = T(vectors_from)(g, from);
        vec v[TILE];
        T(load_exps)(g, tile, from, exps_in_out, stats);
        K(load_direction)(g, v, from);
        for (int c = 0; c < vectors; ++c) {
            const vec from_mean = V(sub)(V(sub)(v[c], stats->direction_at_top), mean);
            tile[c] = V(mul)(g->op == OP_LOG_JVP ? weight : T(scaled)(tile[c], scale, least), from_mean);
            if (g->targets.has_excess) tile[c] = V(mul)(tile[c], excess);
        }
        T(store_derivative)(g, tile, &g->out, from, 0);
    }
}

static void K(write_softmax)(const T(general) * g, vec *tile, int exps_in_out, const T(general_stats) * stats)
{
    const T(factors) x = T(softmax_factors)(stats->sample.stats);
    for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
        T(load_exps)(g, tile, from, exps_in_out, stats);
        for (int c = 0; c < T(vectors_from)(g, from); ++c) tile[c] = T(softmax_entry)(tile[c], x);
        T(store_derivative)(g, tile, &g->out, from, 0);
    }
}

/* log p = -((m - z) / T + log S). */
static void K(write_log_softmax)(const T(general) * g, vec *tile, const T(general_stats) * stats)
{
    for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
        const int vectors = T(vectors_from)(g, from);
        K(load_logits)(g, &g->logits, tile, from); /* a resident tile holds exps by now */
        for (int c = 0; c < vectors; ++c) {
            const vec below = T(units_below)(stats->sample.stats.row_max, tile[c], &stats->t);
            tile[c] = V(sub)(V(set1)(0), V(fma)(below, stats->t.scale_of_unit, stats->sample.log_sum));
        }
        T(remove_classes)(g, tile, from, vectors, -(real)INFINITY);
        K(store_tile)(tile, &g->out, from, vectors);
    }
}

/* The gradient of the entropy, from the logits, which are still there. */
static void K(write_entropy)(const T(general) * g, vec *tile, const T(general_stats) * stats)
{
    const T(factors) x = T(entropy_factors)(&g->targets, &stats->sample);
    const vec zero = V(set1)(0);
    for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
        const int vectors = T(vectors_from)(g, from);
        K(load_logits)(g, &g->logits, tile, from); /* a resident tile holds exps by now */
        for (int c = 0; c < vectors; ++c) {
            const vec e = T(general_exp)(tile[c], stats);
            const vec below = T(units_below)(stats->sample.stats.row_max, tile[c], &stats->t);
            const vec depth = V(select)(V(eq)(e, zero), zero, V(mul)(below, stats->t.scale_of_unit));
            tile[c] = T(entropy_entry)(e, depth, x);
            if (g->targets.has_excess) tile[c] = V(mul)(tile[c], g->targets.excess);
        }
        T(store_derivative)(g, tile, &g->out, from, g->b->accumulate);
    }
}

/* J_ij = p_i (1 if i == j else 0) - p_i p_j, one row i after the other. */
static void K(write_jacobian)(const T(general) * g, vec *tile, const T(general_stats) * stats)
{
    const T(stats) s = stats->sample.stats;
    const vec p_scale = V(div)(V(set1)(1), T(sum_exp)(s));
    const ptrdiff_t row_bytes = g->b->out_row_stride * T(size_of_element)(g->b->out_type);
    T(view) out = g->out;
    vec exps[TILE];
    for (ptrdiff_t i = 0; i < g->b->n_classes; ++i, out.data += row_bytes) {
        ptrdiff_t diagonal[LANES];
        for (int lane = 0; lane < LANES; ++lane) diagonal[lane] = i;
        if (g->in_rows)
            exps[0] = V(set1)(T(element)(g->logits.data, g->logits.type, i * g->logits.lane_stride));
        else
            K(load_tile)(exps, &g->logits, i, 1, 0);
        const vec z_i = exps[0];
        const vec e_i = T(exp_tempered)(z_i, &stats->t), p_i = V(mul)(e_i, p_scale);
        const vec is_top = V(select)(V(eq)(z_i, s.row_max), V(set1)(1), V(set1)(0));
        const mask is_confident_top = V(lt)(T(sum_beside_one)(s), is_top);
        const vec not_p_i =
            V(select)(is_confident_top, V(div)(s.others, T(sum_exp)(s)), V(fnma)(e_i, p_scale, V(set1)(1)));
        const vec scale = V(sub)(V(set1)(0), V(mul)(p_i, p_scale)), least = T(least_scaled)(scale);
        for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
            const int vectors = T(vectors_from)(g, from);
            T(load_exps)(g, tile, from, 0, stats);
            for (int c = 0; c < vectors; ++c) exps[c] = T(scaled)(tile[c], scale, least);
            T(put_entries)(g, exps, from, diagonal, 0, V(mul)(p_i, not_p_i));
            K(store_tile)(exps, &out, from, vectors);
        }
    }
}

/* Loads from the parts of all classes what the first two sweeps would have computed. */
static void K(load_stats)(const T(general) * g, T(general_stats) * stats)
{
    T(parts) p = T(read_parts)(g->b, &g->targets);
    if (g->in_rows) {
        p.row_max = V(set1)(V(first)(p.row_max)), p.n_max = V(set1)(V(first)(p.n_max));
        p.sum_others = V(set1)(V(first)(p.sum_others)), p.label_logit = V(set1)(V(first)(p.label_logit));
    }
    stats->t = T(tempered_of)(p.row_max, &g->inverse, g->targets.headroom);
    T(stats_from_parts)(&stats->sample, &g->targets, p, stats->t.shift, stats->t.unit);
    T(conclude)(g, stats, T(no_sums)());
}

/* ---- One group --------------------------------------------------------------------------------------------------- */

/* Below, in divergence.h. */
static void K(divergence_from_target)(T(general) * g, vec *tile, vec *t, T(general_stats) * stats);
static void K(divergence_from_teacher)(T(general) * g, vec *tile, vec *of_teacher);

/* Writes the results of a group of which all samples are ignored. */
static void K(write_nothing)(const T(general) * g)
{
    vec tile[TILE];
    if (g->b->loss) T(store_losses)(&g->call, &g->targets, V(set1)(0));
    if (g->b->temperature_grad) T(put_temperature_grad)(g->b, &g->targets, V(set1)(0));
    if (g->op == OP_RANK) T(store_no_ranks)(g->b, g->targets.begin, g->targets.n_samples);
    for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
        const int vectors = T(vectors_from)(g, from);
        for (int which = 0; which < 2; ++which) {
            const T(view) *out = which ? &g->hess : &g->out;
            if (!out->data || (!which && g->b->accumulate)) continue;
            for (int c = 0; c < vectors; ++c) tile[c] = V(set1)(0);
            K(store_tile)(tile, out, from, vectors);
        }
    }
}

/* Whether exps may be stored in the output: it has their type, holds nothing that is accumulated, and the logits, which
 * it may overwrite, are not needed again. */
SIMD_INLINE int T(can_keep)(const T(general) * g)
{
    return has_trait(g->op, HAS_EXPS) && !has_trait(g->op, REREADS_LOGITS) && !g->resident && g->out.data &&
           g->b->out_type == SOFTXENT_REAL && !g->b->accumulate && !(g->call.o.softcap > 0);
}

static void K(general_group)(T(general) * g)
{
    vec tile[TILE], q[TILE];
    T(general_stats) stats;
    const int keep = T(can_keep)(g);
    if (g->op == OP_KL && g->b->target_holds_logits) {
        K(divergence_from_teacher)(g, tile, q);
        return;
    }
    if (g->op == OP_FINISH) {
        K(load_stats)(g, &stats);
    } else {
        K(general_max)(g, tile, &stats);
        if (g->call.o.label_smoothing > 0) K(share_smoothing)(g);
        K(general_sums)(g, tile, q, keep, &stats);
        if (g->targets.n_samples == 0) return;
    }
    T(store_results)(&g->call, &g->targets, &stats.sample, g->op);
    if (g->b->temperature_grad) K(store_temperature_grad)(g, &stats);
    switch (g->op) {
    case OP_RANK: K(rank_samples)(g->b, g->targets.begin, g->targets.n_samples, g->targets.label, g->in_rows); break;
    case OP_SOFTMAX: K(write_softmax)(g, tile, keep, &stats); break;
    case OP_LOG_SOFTMAX: K(write_log_softmax)(g, tile, &stats); break;
    case OP_ENTROPY:
        if (g->b->out) K(write_entropy)(g, tile, &stats);
        break;
    case OP_JACOBIAN: K(write_jacobian)(g, tile, &stats); break;
    case OP_HVP:
    case OP_LOG_JVP:
    case OP_JVP: K(write_product)(g, tile, keep, &stats); break;
    default:
        if (g->op == OP_KL) K(divergence_from_target)(g, tile, q, &stats);
        if (has_trait(g->op, HAS_GRADIENT) && g->b->out) K(write_gradient)(g, tile, q, keep, &stats);
    }
}

static ptrdiff_t K(general_run)(const softxent_block *b, softxent_op op, int in_rows)
{
    T(general) g;
    g.b = b, g.call = K(call_of)(b), g.op = op, g.in_rows = in_rows;
    g.n_vectors = in_rows ? (b->n_classes + LANES - 1) / LANES : b->n_classes;
    /* OP_FINISH has no exps from an earlier sweep, and the divergence's own sweep needs the tiles. */
    g.resident = g.n_vectors <= TILE && op != OP_FINISH && op != OP_KL;
    g.dense = has_target(b) || op == OP_LOG_VJP || g.call.o.label_smoothing > 0,
    g.has_depth = op == OP_ENTROPY || b->temperature_grad;
    g.inverse = T(one_temperature)(g.call.o.temperature);
    const ptrdiff_t step = in_rows ? 1 : LANES;
    T(no_labels)(&g.labels), T(no_targets)(&g.targets);
    for (ptrdiff_t begin = 0; begin < b->n_samples; begin += step) {
        const int n_samples = (int)(b->n_samples - begin < step ? b->n_samples - begin : step);
        K(start_group)(&g, begin, n_samples);
        if (g.targets.n_samples > 0 && (g.targets.any_counted || op == OP_BEGIN))
            K(general_group)(&g);
        else if (g.targets.n_samples > 0)
            K(write_nothing)(&g);
        if (g.targets.n_samples < n_samples) return begin + g.targets.n_samples;
    }
    return b->n_samples;
}
