/* divergence.h - template: the Kullback-Leibler divergence of a target from the softmax, and its gradient, in rows or
 * in lanes, with the general kernel's groups and tiles.
 *
 *     x_k = log t_k - log p_k,   KL = sum t_k (x_k - 1 + exp(-x_k)),   and p_k where t_k = 0
 *
 * This is sum t (log t - log p) + 1 - sum t in terms that are 0 or more. So it is never negative, and t_k may be close
 * to p_k: exp(-x) - 1 + x has a polynomial near 0. What decides is the precision of x_k. For a target of probabilities
 * it is log(t_k / p_k). For a teacher's logits it is a difference of differences, in which equal parts of both vanish
 * before anything is rounded:
 *
 *     d_k = (z_k(teacher) - z_k(student) - m(teacher) + m(student)) / T,   x_k = d_k - log(S(teacher) / S(student))
 *
 * where S = sum exp((z - m) / T). If the two are far apart, KL = sum t d - log(S / S), from one sweep, is precise. */

#ifndef SOFTXENT_DIVERGENCE
#  define SOFTXENT_DIVERGENCE
/* The largest |x| for expm1_near_0. */
static const double NEAR_0 = 4 * 0.34;

/* Samples go in lanes up to so many classes. Other operations change to rows earlier: the divergence has more sums
 * across the lanes for each row. */
enum { KL_LANE_CLASSES = 4 * TILE };
#endif

/* One class in each lane: its exps, for t and for p; and x. */
typedef struct {
    vec t, p, x;
} T(odds);

/* t (x - 1 + exp(-x)); or p where t is 0. */
SIMD_INLINE vec T(divergence_term)(T(odds) k)
{
    const vec zero = V(set1)(0), one = V(set1)(1), minus_x = V(sub)(zero, k.x);
    vec rest;
    T(expm1_near_0)(minus_x, &rest);
    const vec far = V(fma)(k.t, V(sub)(k.x, one), k.p);
    const vec term = V(select)(V(lt)(T(abs)(k.x), V(set1)((real)NEAR_0)), V(mul)(k.t, rest), far);
    return V(select)(V(eq)(k.t, zero), k.p, term);
}

/* ---- A target of probabilities ---------------------------------------------------------------------------------- */

/* p from the logit; x from the quotient t / p, or from logarithms if this might leave the range of reals. */
SIMD_INLINE T(odds) T(odds_of)(vec z, vec t, vec p_scale, const T(general_stats) * stats)
{
    const T(sample) *s = &stats->sample;
    const vec zero = V(set1)(0), large = V(set1)((real)0x1p64), small = V(set1)((real)0x1p-64);
    const vec least = V(set1)(D(SMALLEST_NORMAL)), depth = T(units_below)(s->stats.row_max, z, &stats->t);
    T(odds) k = {V(select)(V(lt)(t, least), zero, t), V(mul)(T(general_exp)(z, stats), p_scale), zero};
    const vec ratio = V(div)(k.t, V(max)(least, k.p));
    const vec in_range = V(select)(V(lt)(small, ratio), V(select)(V(lt)(ratio, large), k.p, zero), zero);
    const mask by_ratio = V(lt)(least, in_range), is_large = V(lt)(large, k.t);
    const vec of = V(select)(is_large, V(mul)(k.t, small), k.t);
    const vec minus_log_p = V(fma)(depth, stats->t.scale_of_unit, s->log_sum);
    const vec more = V(select)(is_large, V(add)(minus_log_p, V(set1)((real)64 * D(LN2))), minus_log_p);
    const vec log = T(log)(V(select)(by_ratio, ratio, V(max)(least, of)));
    k.x = V(select)(by_ratio, log, V(add)(log, more));
    return k;
}

static void K(divergence_from_target)(T(general) * g, vec *tile, vec *t, T(general_stats) * stats)
{
    T(compensated) sum = T(zero)();
    const vec p_scale = V(div)(V(set1)(1), T(sum_exp)(stats->sample.stats));
    vec n_bad = V(set1)(0);
    for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
        const int vectors = T(vectors_from)(g, from);
        K(load_logits)(g, &g->logits, tile, from);
        K(load_density)(g, t, from, &n_bad);
        for (int c = 0; c < vectors; c += 4) {
            vec terms = V(set1)(0);
            for (int i = c; i < c + 4 && i < vectors; ++i)
                terms = V(add)(terms, T(divergence_term)(T(odds_of)(tile[i], t[i], p_scale, stats)));
            T(accumulate_infinite)(&sum, terms);
        }
    }
    T(store_losses)(&g->call, &g->targets, T(weighted)(&g->call, &g->targets, T(total)(g, sum)));
}

/* ---- A teacher's logits ----------------------------------------------------------------------------------------- */

/* The logits of a student and a teacher. */
typedef struct {
    T(general_stats) student, teacher;
    vec tops, tops_low; /* m(teacher) - m(student), in units; and what its rounding left out */
    vec log_ratio;      /* log(S(teacher) / S(student)) */
    vec *kept[2];       /* the logits of both, if they are few: else NULL */
} T(pair);

/* d_k, rounded. It does not matter where both logits are -inf. `is_one`, a constant, says that the temperature is 1. */
SIMD_INLINE vec T(gap_of)(vec student, vec teacher, const T(pair) * pair, const int is_one)
{
    const vec unit = pair->student.t.unit;
    if (is_one) return V(sub)(V(sub)(teacher, student), pair->tops);
    const vec logits = V(sub)(V(mul)(teacher, unit), V(mul)(student, unit));
    return V(mul)(V(sub)(logits, pair->tops), pair->student.t.scale_of_unit);
}

/* a - b, and what its rounding left out: two-sum (Knuth). The latter is 0 where the difference is not finite. */
SIMD_INLINE vec T(difference)(vec a, vec b, vec *low)
{
    const vec d = V(sub)(a, b), minus_b = V(sub)(d, a);
    const vec error = V(sub)(V(sub)(a, V(sub)(d, minus_b)), V(add)(b, minus_b));
    *low = V(select)(V(eq)(error, error), error, V(set1)(0));
    return d;
}

/* d_k, with one rounding of the whole. */
SIMD_INLINE vec T(precise_gap_of)(vec student, vec teacher, const T(pair) * pair)
{
    const vec unit = pair->student.t.unit;
    vec low;
    const vec logits = T(difference)(V(mul)(teacher, unit), V(mul)(student, unit), &low);
    const vec gap = V(add)(V(sub)(logits, pair->tops), V(sub)(low, pair->tops_low));
    return V(mul)(gap, pair->student.t.scale_of_unit);
}

/* How many vectors are handled together, from number `from` on. In rows a last vector that is not whole comes alone, so
 * that all others can be read where they lie. */
SIMD_INLINE int T(pair_vectors)(const T(general) * g, ptrdiff_t from)
{
    const int vectors = T(vectors_from)(g, from), has_tail = g->in_rows && g->b->n_classes % LANES != 0;
    return has_tail && vectors > 1 && from + vectors == g->n_vectors ? vectors - 1 : vectors;
}

/* The logits of a tile, of the student (0) or the teacher (1): in `tile`, or in memory if the kernel may read them
 * there, or where they were kept. */
SIMD_INLINE const real *T(logits_at)(const T(general) * g, const T(pair) * pair, int which, vec *tile, ptrdiff_t from,
                                     int vectors)
{
    const T(view) *v = which ? &g->target : &g->logits;
    if (pair->kept[which]) return (const real *)(pair->kept[which] + from);
    const int is_plain = v->in_rows && v->type == SOFTXENT_REAL && v->lane_stride == 1 && !g->b->where;
    if (is_plain && T(is_full)(v, from, vectors)) return (const real *)(const void *)v->data + from * LANES;
    K(load_logits)(g, v, tile, from);
    return (const real *)tile;
}

/* The largest logit of the student (0) or the teacher (1). Logits that are kept are loaded here. */
static vec K(top_of)(const T(general) * g, const T(pair) * pair, int which, vec *tile)
{
    vec row_max = V(set1)(-(real)INFINITY);
    for (ptrdiff_t from = 0; from < g->n_vectors; from += T(pair_vectors)(g, from)) {
        const int vectors = T(pair_vectors)(g, from);
        vec *kept = pair->kept[which];
        if (kept) K(load_logits)(g, which ? &g->target : &g->logits, kept + from, from);
        const real *z = T(logits_at)(g, pair, which, tile, from, vectors);
        UNROLL_4
        for (int c = 0; c < vectors; ++c) row_max = V(max)(V(load)(z + c * LANES), row_max);
    }
    return g->in_rows ? V(set1)(V(hmax)(row_max)) : row_max;
}

static void K(start_pair)(const T(general) * g, vec *tile, T(pair) * pair)
{
    const vec unit = g->inverse.unit, top = K(top_of)(g, pair, 0, tile), teacher_top = K(top_of)(g, pair, 1, tile);
    pair->student.sample.stats.row_max = top, pair->teacher.sample.stats.row_max = teacher_top;
    pair->student.t = T(tempered_of)(top, &g->inverse, g->targets.headroom);
    pair->teacher.t = T(tempered_of)(teacher_top, &g->inverse, g->targets.headroom);
    pair->tops = T(difference)(V(mul)(teacher_top, unit), V(mul)(top, unit), &pair->tops_low);
}

/* The sums of one sweep over both: the others' exps, how many have the maximum, sum e d and sum e |d|, with the
 * teacher's exps e. */
typedef struct {
    T(compensated) others[2], n_max[2], cost, size;
} T(pair_sums);

/* `is_one`, a constant, says that the temperature is 1. */
SIMD_INLINE void T(pair_terms)(const real *student, const real *teacher, const int n, const T(pair) * pair,
                               const int is_one, T(pair_sums) * s)
{
    const vec zero = V(set1)(0), top = pair->student.sample.stats.row_max,
              teacher_top = pair->teacher.sample.stats.row_max;
    vec others = zero, n_max = zero, teacher_others = zero, teacher_n_max = zero, cost = zero, size = zero;
    for (int c = 0; c < n; ++c) {
        const T(tempered) *t = &pair->student.t, *u = &pair->teacher.t;
        const vec z = V(load)(student + c * LANES), y = V(load)(teacher + c * LANES),
                  gap = T(gap_of)(z, y, pair, is_one);
        const vec e = is_one ? T(exp_shifted)(z, t->shift, 0) : T(exp_tempered)(z, t);
        const vec of_teacher = is_one ? T(exp_shifted)(y, u->shift, 0) : T(exp_tempered)(y, u);
        T(count)(V(eq)(z, top), e, &others, &n_max);
        T(count)(V(eq)(y, teacher_top), of_teacher, &teacher_others, &teacher_n_max);
        const vec e_gap = V(select)(V(eq)(of_teacher, zero), zero, V(mul)(of_teacher, gap));
        cost = V(add)(cost, e_gap), size = V(add)(size, T(abs)(e_gap));
    }
    T(accumulate)(&s->others[0], others), T(accumulate)(&s->n_max[0], n_max);
    T(accumulate)(&s->others[1], teacher_others), T(accumulate)(&s->n_max[1], teacher_n_max);
    T(accumulate_infinite)(&s->cost, cost), T(accumulate_infinite)(&s->size, size);
}

/* The next samples are prefetched meanwhile, where a sample is a row: to_next are the distances, in elements. */
SIMD_INLINE void T(add_pair_tile)(const real *student, const real *teacher, int vectors, const T(pair) * pair,
                                  const ptrdiff_t *to_next, const int is_one, T(pair_sums) * sums)
{
    const T(pair) own = *pair; /* copies: a store into a tile might change the originals */
    T(pair_sums) s = *sums;
    int c = 0;
    for (; c + 4 <= vectors; c += 4) {
        const ptrdiff_t line = CACHE_LINE / (ptrdiff_t)sizeof(real);
        UNROLL_4
        for (ptrdiff_t i = c * LANES; i < (c + 4) * LANES; i += line) {
            PREFETCH(student + to_next[0] + i);
            PREFETCH(teacher + to_next[1] + i);
        }
        T(pair_terms)(student + c * LANES, teacher + c * LANES, 4, &own, is_one, &s);
    }
    for (; c < vectors; ++c) T(pair_terms)(student + c * LANES, teacher + c * LANES, 1, &own, is_one, &s);
    *sums = s;
}

/* Prefetches the logits of the next group, if the samples of a group are rows one behind the other. The lane kernel's
 * prefetch_lanes in its place made a divergence of 100 classes 2 to 12% slower. */
SIMD_INLINE void T(prefetch_group)(const T(view) * v, ptrdiff_t n_classes)
{
    const ptrdiff_t bytes = LANES * n_classes * T(size_of_element)(v->type);
    if (v->in_rows || v->vector_stride != 1 || v->lane_stride != n_classes) return;
    for (ptrdiff_t i = 0; i < bytes; i += CACHE_LINE) PREFETCH(v->data + bytes + i);
}

/* Sets the sums of exps; returns KL = sum t d - log(S / S), and in *error_scale what multiplies its error in eps. */
static vec K(sum_pair)(T(general) * g, vec *tile, vec *of_teacher, T(pair) * pair, vec *error_scale)
{
    const T(compensated) none = T(zero)();
    T(pair_sums) sums = {{none, none}, {none, none}, none, none};
    T(general_stats) * stats[] = {&pair->student, &pair->teacher};
    const ptrdiff_t to_next[] = {g->in_rows ? g->b->logits_sample_stride : 0,
                                 g->in_rows ? g->b->target_sample_stride : 0};
    T(prefetch_group)(&g->logits, g->b->n_classes), T(prefetch_group)(&g->target, g->b->n_classes);
    for (ptrdiff_t from = 0; from < g->n_vectors; from += T(pair_vectors)(g, from)) {
        const int vectors = T(pair_vectors)(g, from);
        const real *student = T(logits_at)(g, pair, 0, tile, from, vectors);
        const real *teacher = T(logits_at)(g, pair, 1, of_teacher, from, vectors);
        if (pair->student.t.is_one)
            T(add_pair_tile)(student, teacher, vectors, pair, to_next, 1, &sums);
        else
            T(add_pair_tile)(student, teacher, vectors, pair, to_next, 0, &sums);
    }
    for (int i = 0; i < 2; ++i)
        stats[i]->sample.stats = T(stats_of)(stats[i]->sample.stats.row_max, stats[i]->t.shift.top,
                                             T(total)(g, sums.n_max[i]), T(total)(g, sums.others[i]), g->op);
    const T(stats) student = pair->student.sample.stats, teacher = pair->teacher.sample.stats;
    const vec one = V(set1)(1), inverse = V(div)(one, T(sum_exp)(teacher));
    const vec of_student = V(div)(T(sum_exp)(student), student.top);
    pair->log_ratio = T(log)(V(div)(V(div)(T(sum_exp)(teacher), teacher.top), of_student));
    const vec of_tops = V(mul)(T(abs)(pair->tops), pair->student.t.scale_of_unit);
    *error_scale = V(add)(V(fma)(T(total)(g, sums.size), inverse, V(set1)(2)), of_tops);
    return V(sub)(V(mul)(T(total)(g, sums.cost), inverse), pair->log_ratio);
}

/* Loads a tile of both logits, and replaces them by exps; `gap` becomes d. */
static void K(load_pair)(T(general) * g, ptrdiff_t from, int vectors, const T(pair) * pair, vec *e, vec *of_teacher,
                         vec *gap)
{
    const real *student = T(logits_at)(g, pair, 0, e, from, vectors);
    const real *teacher = T(logits_at)(g, pair, 1, of_teacher, from, vectors);
    for (int c = 0; c < vectors; ++c) {
        const vec z = V(load)(student + c * LANES), y = V(load)(teacher + c * LANES);
        gap[c] = T(precise_gap_of)(z, y, pair);
        e[c] = T(general_exp)(z, &pair->student), of_teacher[c] = T(general_exp)(y, &pair->teacher);
    }
}

/* log(S(teacher) / S(student)) where both are similar: log1p of sum e (exp(d) - 1) / S(student). */
static void K(refine_log_ratio)(T(general) * g, vec *e, vec *of_teacher, vec *gap, T(pair) * pair)
{
    const T(stats) student = pair->student.sample.stats, teacher = pair->teacher.sample.stats;
    const vec ratio = V(div)(student.top, teacher.top), zero = V(set1)(0);
    T(compensated) sum = T(zero)();
    for (ptrdiff_t from = 0; from < g->n_vectors; from += T(pair_vectors)(g, from)) {
        const int vectors = T(pair_vectors)(g, from);
        K(load_pair)(g, from, vectors, pair, e, of_teacher, gap);
        for (int c = 0; c < vectors; ++c) {
            vec rest;
            const vec near = V(mul)(e[c], T(expm1_near_0)(gap[c], &rest)),
                      far = V(fma)(of_teacher[c], ratio, V(sub)(zero, e[c]));
            T(accumulate)(&sum, V(select)(V(lt)(T(abs)(gap[c]), V(set1)((real)NEAR_0)), near, far));
        }
    }
    const vec change = V(div)(T(total)(g, sum), T(sum_exp)(student));
    const mask is_similar = V(lt)(T(abs)(change), V(set1)((real)0.5));
    pair->log_ratio = V(select)(is_similar, T(log1p)(change), pair->log_ratio);
}

static vec K(sum_divergence)(T(general) * g, vec *e, vec *of_teacher, vec *gap, const T(pair) * pair)
{
    const vec one = V(set1)(1), p_scale = V(div)(one, T(sum_exp)(pair->student.sample.stats)),
              t_scale = V(div)(one, T(sum_exp)(pair->teacher.sample.stats));
    T(compensated) sum = T(zero)();
    for (ptrdiff_t from = 0; from < g->n_vectors; from += T(pair_vectors)(g, from)) {
        const int vectors = T(pair_vectors)(g, from);
        K(load_pair)(g, from, vectors, pair, e, of_teacher, gap);
        for (int c = 0; c < vectors; c += 4) {
            vec terms = V(set1)(0);
            for (int i = c; i < c + 4 && i < vectors; ++i) {
                const T(odds)
                    k = {V(mul)(of_teacher[i], t_scale), V(mul)(e[i], p_scale), V(sub)(gap[i], pair->log_ratio)};
                terms = V(add)(terms, T(divergence_term)(k));
            }
            T(accumulate_infinite)(&sum, terms);
        }
    }
    return T(total)(g, sum);
}

/* (p - t) upstream, as p (1 - exp(x)) where t is near p. */
static void K(write_pair_gradient)(T(general) * g, vec *e, vec *of_teacher, vec *gap, const T(pair) * pair)
{
    const vec zero = V(set1)(0), upstream = g->targets.upstream,
              p_scale = V(div)(upstream, T(sum_exp)(pair->student.sample.stats)),
              t_scale = V(div)(upstream, T(sum_exp)(pair->teacher.sample.stats)), p_least = T(least_scaled)(p_scale),
              t_least = T(least_scaled)(t_scale);
    for (ptrdiff_t from = 0; from < g->n_vectors; from += TILE) {
        const int vectors = T(vectors_from)(g, from);
        K(load_pair)(g, from, vectors, pair, e, of_teacher, gap);
        for (int c = 0; c < vectors; ++c) {
            const vec x = V(sub)(gap[c], pair->log_ratio), p = T(scaled)(e[c], p_scale, p_least);
            vec rest;
            const vec near = V(sub)(zero, V(mul)(p, T(expm1_near_0)(x, &rest)));
            const vec far = V(sub)(p, T(scaled)(of_teacher[c], t_scale, t_least));
            e[c] = V(select)(V(lt)(T(abs)(x), V(set1)((real)NEAR_0)), near, far);
            if (g->targets.has_excess) e[c] = V(mul)(e[c], g->targets.excess);
        }
        T(store_derivative)(g, e, &g->out, from, g->b->accumulate);
    }
}

/* A divergence is precise at once where it is not much smaller than the terms that it was summed of. */
static void K(divergence_from_teacher)(T(general) * g, vec *tile, vec *of_teacher)
{
    T(pair) pair;
    vec student[2 * TILE], teacher[2 * TILE], gap[TILE], error_scale;
    const int keeps = !g->in_rows && g->n_vectors <= 2 * TILE;
    pair.kept[0] = keeps ? student : NULL, pair.kept[1] = keeps ? teacher : NULL;
    K(start_pair)(g, tile, &pair);
    vec divergence = K(sum_pair)(g, tile, of_teacher, &pair, &error_scale);
    const vec one = V(set1)(1), zero = V(set1)(0);
    const vec is_far = V(select)(V(lt)(error_scale, V(mul)(divergence, V(set1)(8))), one, zero);
    const mask is_near = V(eq)(is_far, zero);
    if (V(any)(is_near) || g->b->out) K(refine_log_ratio)(g, tile, of_teacher, gap, &pair);
    if (V(any)(is_near))
        divergence = V(select)(is_near, K(sum_divergence)(g, tile, of_teacher, gap, &pair), divergence);
    const vec sum = T(sum_exp)(pair.teacher.sample.stats); /* nan where no logit of the teacher is finite */
    divergence = V(add)(divergence, V(sub)(sum, sum));
    T(store_losses)(&g->call, &g->targets, T(weighted)(&g->call, &g->targets, divergence));
    if (g->b->out) K(write_pair_gradient)(g, tile, of_teacher, gap, &pair);
}
