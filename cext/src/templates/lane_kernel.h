/* lane_kernel.h - template: LANES samples at a time, one in each lane. It is for few classes, for every layout whose
 * class stride is not 1, and for all samples where a vector has one lane. It handles any target, weights and element
 * types, but not the options that change the logits themselves.
 *
 * The logits come in tiles of up to TILE classes: vector c of a tile holds class c of every sample. Samples of up to
 * TILE classes are loaded once and stay in their tile (resident). With more classes each sweep loads its tiles again,
 * and the exps are stored in the output between the sweeps. */

/* The number of groups that go through each sweep one after the other. The operations of a group form long chains of
 * dependencies; those of different groups can overlap. */
#ifndef SOFTXENT_GROUPS
#  define SOFTXENT_GROUPS
enum { GROUPS_AT_ONCE = 4 };
#endif

/* A group: LANES samples. */
typedef struct {
    const softxent_block *b;
    const T(call) * call;
    T(targets) targets; /* samples that do not count are computed with logits 0 and q = 0 */
    T(view) logits, target, out;
    vec n_bad;       /* entries of the target that are negative or nan */
    vec *tile, *q;   /* tile_stride vectors each; then those of the next group follow */
    int resident;    /* whether the tile holds all classes; q then holds the density of a DENSE target */
    int exps_in_out; /* if not resident: whether the exps are stored in the output */
    int near;        /* whether shift.base is 0 in every lane */
    T(sample) sample;
    T(factors) factors;
    vec label_entry;
    T(ranking) ranking;
} T(group);

SIMD_INLINE int T(classes_from)(const T(group) * g, ptrdiff_t from)
{
    const ptrdiff_t left = g->b->n_classes - from;
    return (int)(left < TILE ? left : TILE);
}

/* ---- Tiles ------------------------------------------------------------------------------------------------------- */

static void K(load_group)(const T(group) * g, ptrdiff_t from)
{
    const int classes = T(classes_from)(g, from);
    K(load_tile)(g->tile, &g->logits, from, classes, 0);
    for (int c = 0; c < classes && !g->targets.all_counted; ++c) g->tile[c] = T(if_counted)(&g->targets, g->tile[c]);
}

/* The target's density q, without what an index label adds. `loaded` says that g->q holds the target already. Counts
 * bad entries of the target. */
static void K(form_density)(const T(group) * g, ptrdiff_t from, int loaded, vec *n_bad)
{
    const int classes = T(classes_from)(g, from), is_given = has_target(g->b);
    const real *w = (const real *)g->call->o.class_weight;
    const vec keep = V(set1)((real)(1 - g->call->o.label_smoothing)), share = g->sample.share;
    vec *q = g->q;
    if (is_given && !loaded) K(load_target)(g->b, &g->target, g->targets.begin, g->targets.n_samples, q, from, classes);
    for (int c = 0; c < classes && is_given; ++c) T(count_bad)(n_bad, q[c]);
    for (int c = 0; c < classes; ++c) {
        const vec density = is_given ? T(smoothed)(q[c], keep, share) : share;
        q[c] = w ? V(mul)(density, V(set1)(w[from + c])) : density;
    }
    for (int c = 0; c < classes && !g->targets.all_counted; ++c) q[c] = T(if_counted)(&g->targets, q[c]);
}

/* Whether all groups have LANES samples, and all samples lie side by side in memory. Then the groups take turns class
 * by class, because the samples of one class are close together in memory and the next class may be far. */
SIMD_INLINE int T(are_beside)(const T(view) * first, int type, int n_samples_of_last)
{
    return first->lane_stride == 1 && type == SOFTXENT_REAL && n_samples_of_last == LANES;
}

/* The number of vectors from a group's tile to the next one's. It is a multiple of LANES, because tiles are transposed
 * LANES vectors at a time. */
SIMD_INLINE ptrdiff_t T(tile_stride)(ptrdiff_t n_classes)
{
    return n_classes < TILE ? (n_classes + LANES - 1) / LANES * LANES : TILE;
}

/* Loads the tiles of groups that lie side by side, class by class. */
SIMD_INLINE void T(load_in_turns)(vec *tiles, const T(view) * first, ptrdiff_t n_classes, int n_groups)
{
    const real *from = (const real *)(const void *)first->data;
    const ptrdiff_t stride = first->vector_stride, tile_stride = T(tile_stride)(n_classes);
    for (ptrdiff_t c = 0; c < n_classes; ++c)
        for (int i = 0; i < n_groups; ++i) tiles[i * tile_stride + c] = V(load)(from + c * stride + i * LANES);
}

/* Loads the resident tiles of all groups. */
static void K(load_groups)(T(group) * groups, int n_groups, const softxent_target_kind target_kind)
{
    const softxent_block *b = groups->b;
    const ptrdiff_t n_classes = b->n_classes;
    const int n_last = groups[n_groups - 1].targets.n_samples, is_dense = target_kind == DENSE && b->target;
    const int in_turns = T(are_beside)(&groups->logits, b->logits_type, n_last);
    const int target_in_turns = is_dense && T(are_beside)(&groups->target, b->target_type, n_last);
    if (in_turns) T(load_in_turns)(groups->tile, &groups->logits, n_classes, n_groups);
    if (target_in_turns) T(load_in_turns)(groups->q, &groups->target, n_classes, n_groups);
    for (int i = 0; i < n_groups; ++i) {
        T(group) *g = &groups[i];
        if (!in_turns)
            K(load_group)(g, 0);
        else
            for (ptrdiff_t c = 0; c < n_classes && !g->targets.all_counted; ++c)
                g->tile[c] = T(if_counted)(&g->targets, g->tile[c]);
        if (target_kind == DENSE) K(form_density)(g, 0, target_in_turns, &g->n_bad);
    }
}

static void K(store_groups)(const T(group) * groups, int n_groups)
{
    const softxent_block *b = groups->b;
    const ptrdiff_t stride = b->out_class_stride;
    real *first = (real *)(void *)groups->out.data;
    if (!T(are_beside)(&groups->out, b->out_type, groups[n_groups - 1].targets.n_samples)) {
        for (int i = 0; i < n_groups; ++i) K(store_tile)(groups[i].tile, &groups[i].out, 0, (int)b->n_classes);
        return;
    }
    for (ptrdiff_t c = 0; c < b->n_classes; ++c)
        for (int i = 0; i < n_groups; ++i) V(store)(first + c * stride + i * LANES, groups[i].tile[c]);
}

/* The place of the element of sample i at its label, which must be a class. */
SIMD_INLINE ptrdiff_t T(place_of_label)(const T(group) * g, const T(view) * v, int i)
{
    return i * v->lane_stride + (ptrdiff_t)g->targets.label[i] * v->vector_stride;
}

/* ---- First sweep: the maximum ------------------------------------------------------------------------------------ */

/* The logits at the labels, looked up one by one. */
SIMD_INLINE vec T(look_up_lanes)(const T(group) * g)
{
    real lanes[LANES] = {0};
    const T(view) *z = &g->logits;
    for (int i = 0; i < g->targets.n_samples; ++i)
        if (g->targets.label[i] >= 0) lanes[i] = T(element)(z->data, z->type, T(place_of_label)(g, z, i));
    return V(load)(lanes);
}

/* Finds the maximum, and the logits at the labels: in a resident tile during the sweep, because that costs less than to
 * look each of them up. */
static void K(lane_max)(T(group) * g, softxent_op op)
{
    vec vmax = V(set1)(-(real)INFINITY), class = V(set1)(0), label_logit = class;
    const vec label = g->targets.label_lane;
    const vec *tile = g->tile;
    const int has_label = has_trait(op, NEEDS_LABELS | NEEDS_SHARD);
    for (ptrdiff_t from = 0; from < g->b->n_classes; from += TILE) {
        const int classes = T(classes_from)(g, from);
        if (!g->resident) K(load_group)(g, from);
        if (g->resident && has_label) {
            UNROLL_4
            for (int c = 0; c < classes; ++c, class = V(add)(class, V(set1)(1))) {
                label_logit = V(select)(V(eq)(label, class), tile[c], label_logit);
                vmax = V(max)(tile[c], vmax);
            }
        } else {
            UNROLL_4
            for (int c = 0; c < classes; ++c) vmax = V(max)(tile[c], vmax);
        }
    }
    g->sample.label_logit = label_logit;
    if (!g->resident && has_label) g->sample.label_logit = T(look_up_lanes)(g);
    g->sample.shift = T(shift_of)(vmax, g->targets.headroom), g->sample.stats.row_max = vmax;
    g->near = !V(any)(V(lt)(V(set1)(0), T(abs)(g->sample.shift.base)));
}

/* Ranks index labels while the tile is resident. All other samples are ranked in store_lane_ranks. */
static void K(rank_lanes)(T(group) * g)
{
    T(ranking) *r = &g->ranking;
    if (!g->resident || has_target(g->b)) return;
    r->row_max = g->sample.stats.row_max, r->label_logit = g->sample.label_logit, r->label = g->targets.label_lane;
    K(rank_tile)(r, g->tile, (int)g->b->n_classes, 0);
}

/* ---- Second sweep: the sums -------------------------------------------------------------------------------------- */

/* Replaces a logit by its exp, and adds it to the sums. For ITSELF q becomes m - z. */
SIMD_INLINE void T(lane_term)(vec *z, vec *q, vec row_max, T(shift) shift, const int near,
                              const softxent_target_kind target_kind, T(partial_sums) * partial, vec *n_max)
{
    const mask is_max = V(eq)(*z, row_max);
    if (target_kind == ITSELF) {
        *z = T(depth_term)(*z, row_max, shift, near, &partial->others, n_max, &partial->depth, q);
        return;
    }
    if (target_kind != INDEX) T(add_target)(partial, is_max, V(sub)(row_max, *z), *q, target_kind);
    const vec e = T(term)(*z, row_max, shift, near, &partial->others, n_max);
    *z = target_kind == INDEX ? e : T(with_top)(e, *z, row_max, shift.top);
}

SIMD_INLINE void T(lane_terms)(const T(group) * g, int classes, const int near, const softxent_target_kind target_kind,
                               T(sums) * sums)
{
    const T(shift) shift = g->sample.shift; /* copies: a store into the tile might change the originals */
    const vec row_max = g->sample.stats.row_max;
    vec *tile = g->tile;
    vec *q = target_kind == DENSE || target_kind == ITSELF ? g->q : g->tile;
    T(sums) s = *sums;
    int c = 0;
    for (; c + 4 <= classes; c += 4) {
        T(partial_sums) partial = T(no_partial_sums)();
        UNROLL
        for (int i = c; i < c + 4; ++i)
            T(lane_term)(tile + i, q + i, row_max, shift, near, target_kind, &partial, &s.n_max);
        T(add_partial_sums)(&s, partial, target_kind);
    }
    T(partial_sums) last = T(no_partial_sums)();
    for (; c < classes; ++c) T(lane_term)(tile + c, q + c, row_max, shift, near, target_kind, &last, &s.n_max);
    T(add_partial_sums)(&s, last, target_kind);
    *sums = s;
}

/* The exps stay in a resident tile, or are stored in the output. */
SIMD_INLINE void T(lane_sum)(T(group) * g, softxent_op op, const softxent_target_kind target_kind)
{
    T(sums) s = T(no_sums)();
    for (ptrdiff_t from = 0; from < g->b->n_classes; from += TILE) {
        const int classes = T(classes_from)(g, from);
        if (!g->resident) {
            K(load_group)(g, from);
            if (target_kind == DENSE) K(form_density)(g, from, 0, &g->n_bad);
        }
        if (g->near && target_kind != DENSE) /* for a DENSE target one subtraction more does not matter */
            T(lane_terms)(g, classes, 1, target_kind, &s);
        else
            T(lane_terms)(g, classes, 0, target_kind, &s);
        if (g->exps_in_out) K(store_reals)(g->tile, &g->out, from, classes);
    }
    T(sample) *sample = &g->sample;
    sample->stats = T(stats_of)(sample->stats.row_max, sample->shift.top, s.n_max, T(value)(s.others), op);
    if (target_kind == ITSELF) sample->mean_depth = V(div)(T(value)(s.depth), T(sum_exp)(sample->stats));
    if (has_trait(op, HAS_LOSS))
        T(sum_targets)(sample, &g->targets, T(cost)(sample->label_logit, g->targets.label_q, sample->stats.row_max),
                       T(value)(s.target_cost), T(value)(s.top_q), T(value)(s.others_q), V(set1)((real)g->b->n_classes),
                       target_kind);
}

static void K(lane_sum_any)(T(group) * g, softxent_op op, softxent_target_kind target_kind)
{
    switch (target_kind) {
    case INDEX: T(lane_sum)(g, op, INDEX); break;
    case SMOOTHED: T(lane_sum)(g, op, SMOOTHED); break;
    case ITSELF: T(lane_sum)(g, op, ITSELF); break;
    default: T(lane_sum)(g, op, DENSE); break;
    }
}

/* Replaces the first two sweeps where the parts of all classes are given. Only a resident tile needs its exps. */
static void K(load_lane_stats)(T(group) * g)
{
    const T(parts) p = T(read_parts)(g->b, &g->targets);
    const T(shift) shift = T(shift_of)(p.row_max, g->targets.headroom);
    T(stats_from_parts)(&g->sample, &g->targets, p, shift, V(set1)(1));
    for (ptrdiff_t c = 0; c < g->b->n_classes && g->resident; ++c) g->tile[c] = T(exp_shifted)(g->tile[c], shift, 0);
}

/* Samples with a nan and samples without a finite maximum look alike here, so rank_samples looks at each of them
 * again. */
static void K(store_lane_ranks)(const T(group) * g)
{
    const softxent_block *b = g->b;
    const T(targets) *targets = &g->targets;
    const vec others = g->sample.stats.others, none = V(set1)(-1), zero = V(set1)(0);
    real rank[LANES], top[LANES], is_sure[LANES], labels[LANES];
    if (!g->resident || has_target(b)) {
        K(rank_samples)(b, targets->begin, targets->n_samples, targets->label, 0);
        return;
    }
    V(store)(rank, V(select)(targets->counted, g->ranking.n_before, none));
    V(store)(top, V(select)(targets->counted, V(sub)(zero, g->ranking.top), none));
    V(store)(is_sure, V(select)(targets->counted, V(select)(V(eq)(others, others), V(set1)(1), zero), V(set1)(1)));
    V(store)(labels, targets->label_lane);
    for (int i = 0; i < targets->n_samples; ++i) {
        const int64_t label = (int64_t)labels[i];
        if (is_sure[i] != 0)
            T(store_rank)(b, targets->begin + i, (int64_t)rank[i], (int64_t)top[i]);
        else
            K(rank_samples)(b, targets->begin + i, 1, &label, 1);
    }
}

/* Computes what lies between the sweeps: logarithms and divisions. */
static void K(lane_finish)(T(group) * g, softxent_op op, softxent_target_kind target_kind)
{
    const T(targets) *targets = &g->targets;
    T(sample) *sample = &g->sample;
    T(set_lse)(sample, NULL);
    T(store_results)(g->call, targets, sample, op);
    if (op == OP_SOFTMAX) g->factors = T(softmax_factors)(sample->stats);
    if (op == OP_ENTROPY) g->factors = T(entropy_factors)(targets, sample);
    if (op == OP_RANK) K(store_lane_ranks)(g);
    if (!has_trait(op, HAS_GRADIENT) || !g->b->out) return;
    g->factors = T(gradient_factors)(g->call, targets, sample, target_kind);
    g->label_entry = T(label_entry)(g->call, targets, sample, g->factors, target_kind);
}

/* ---- Third sweep: the output ------------------------------------------------------------------------------------- */

/* Turns exps into the gradient. In a resident tile this includes the entries at the labels. */
SIMD_INLINE void T(lane_gradient)(const T(group) * g, int classes, const softxent_target_kind target_kind)
{
    vec *tile = g->tile, class = V(set1)(0);
    const T(factors) x = g->factors;
    const vec label = g->targets.label_lane, label_entry = g->label_entry, share = g->sample.share, one = V(set1)(1);
    if (g->resident) {
        UNROLL_4
        for (int c = 0; c < classes; ++c, class = V(add)(class, one)) {
            const vec entry = T(gradient_entry)(tile[c], target_kind == DENSE ? g->q[c] : share, x, target_kind);
            tile[c] = V(select)(V(eq)(label, class), label_entry, entry);
        }
    } else {
        for (int c = 0; c < classes; ++c)
            tile[c] = T(gradient_entry)(tile[c], target_kind == DENSE ? g->q[c] : share, x, target_kind);
    }
}

static void K(lane_gradient_any)(const T(group) * g, int classes, softxent_target_kind target_kind)
{
    switch (target_kind) {
    case INDEX: T(lane_gradient)(g, classes, INDEX); break;
    case SMOOTHED: T(lane_gradient)(g, classes, SMOOTHED); break;
    default: T(lane_gradient)(g, classes, DENSE); break;
    }
}

/* Turns exps into entries of the output; for log_softmax, logits into (z - m) - log S. */
SIMD_INLINE void T(lane_write)(const T(group) * g, softxent_op op, softxent_target_kind target_kind)
{
    const T(sample) *sample = &g->sample;
    vec *tile = g->tile;
    for (ptrdiff_t from = 0; from < g->b->n_classes; from += TILE) {
        const int classes = T(classes_from)(g, from);
        if (g->exps_in_out) {
            K(load_reals)(tile, &g->out, from, classes, 0);
        } else if (!g->resident || op == OP_LOG_SOFTMAX) { /* a resident tile holds exps by now */
            K(load_group)(g, from);
            for (int c = 0; c < classes && op != OP_LOG_SOFTMAX; ++c) {
                const vec z = tile[c];
                if (op == OP_ENTROPY)
                    g->q[c] = T(depth_of)(T(shifted)(z, sample->shift, 0), sample->stats.row_max, sample->shift);
                tile[c] = T(exp_with_top)(z, sample->stats.row_max, sample->shift, 0);
            }
        }
        if (op == OP_LOG_SOFTMAX) {
            for (int c = 0; c < classes; ++c) tile[c] = V(sub)(V(sub)(tile[c], sample->stats.row_max), sample->log_sum);
        } else if (op == OP_SOFTMAX) {
            for (int c = 0; c < classes; ++c) tile[c] = T(softmax_entry)(tile[c], g->factors);
        } else if (op == OP_ENTROPY) {
            for (int c = 0; c < classes; ++c) tile[c] = T(entropy_entry)(tile[c], g->q[c], g->factors);
            for (int c = 0; c < classes && g->targets.has_excess; ++c) tile[c] = V(mul)(tile[c], g->targets.excess);
        } else {
            vec n_bad = V(set1)(0); /* counted in the second sweep */
            if (target_kind == DENSE && !g->resident) K(form_density)(g, from, 0, &n_bad);
            K(lane_gradient_any)(g, classes, target_kind);
            for (int c = 0; c < classes && g->targets.has_excess; ++c) tile[c] = V(mul)(tile[c], g->targets.excess);
        }
        if (g->b->accumulate) {
            vec before[TILE];
            K(load_tile)(before, &g->out, from, classes, 0);
            for (int c = 0; c < classes; ++c) /* an ignored sample keeps what it has, even -0 */
                tile[c] = V(select)(g->targets.counted, V(add)(tile[c], before[c]), before[c]);
        }
        if (!g->resident) K(store_tile)(tile, &g->out, from, classes);
    }
}

/* Writes the output. If the tile is not resident, the entries at the labels are written over the others. */
static void K(lane_end)(const T(group) * g, softxent_op op, softxent_target_kind target_kind)
{
    real entries[LANES] = {0};
    const T(view) *out = &g->out;
    const int n_entries = has_trait(op, HAS_GRADIENT) && !g->resident ? g->targets.n_samples : 0;
    if (n_entries) V(store)(entries, V(mul)(g->label_entry, g->targets.excess));
    for (int i = 0; i < n_entries && g->b->accumulate; ++i)
        if (g->targets.label[i] >= 0) entries[i] += T(element)(out->data, out->type, T(place_of_label)(g, out, i));
    T(lane_write)(g, op, target_kind);
    for (int i = 0; i < n_entries; ++i)
        if (g->targets.label[i] >= 0) T(set_element)(out->data, out->type, T(place_of_label)(g, out, i), entries[i]);
}

/* ---- Groups, and a block of them --------------------------------------------------------------------------------- */

/* Sets what is the same for all groups of a block. */
SIMD_INLINE void T(prepare_group)(T(group) * g, const T(call) * call, vec *tile, vec *q, int exps_in_out)
{
    const softxent_block *b = call->b;
    g->b = b, g->call = call, g->tile = tile, g->q = q, g->exps_in_out = exps_in_out,
    g->resident = b->n_classes <= TILE;
    g->sample.share = T(smoothed_share)(call);
    g->logits = T(lanes_view)(NULL, b->logits_type, b->logits_sample_stride, b->logits_class_stride, 0, 0);
    g->target = T(lanes_view)(NULL, b->target_type, b->target_sample_stride, b->target_class_stride, 0, 0);
    g->out = T(lanes_view)(NULL, b->out_type, b->out_sample_stride, b->out_class_stride, 0, 0);
    T(no_targets)(&g->targets);
}

SIMD_INLINE void T(place_view)(T(view) * v, const void *data, ptrdiff_t begin, int n, ptrdiff_t room)
{
    v->data = (char *)data + begin * v->lane_stride * T(size_of_element)(v->type);
    v->limit = n, v->room = room;
}

static void K(start_lanes)(T(group) * g, T(labels) * labels, ptrdiff_t begin, int lanes)
{
    const softxent_block *b = g->b;
    const int at_once = g->resident && g->call->has_plain_labels && lanes == LANES;
    if (!at_once || !T(load_plain_targets)(&g->targets, g->call, begin))
        K(load_targets)(&g->targets, labels, g->call, begin, lanes, 0);
    const int n = g->targets.n_samples;
    g->n_bad = V(set1)(0);
    T(place_view)(&g->logits, b->logits, begin, n, b->n_samples - begin);
    if (b->target) T(place_view)(&g->target, b->target, begin, n, b->n_samples - begin);
    if (b->out) T(place_view)(&g->out, b->out, begin, n, n);
}

/* Prefetches what the group `further` samples on will read or write, if a group is one range of memory, or each of its
 * classes is. The calls are spread over the second sweep, which computes most, so that the memory is busy meanwhile.
 * Inline, because a compiler drops calls of a function that does nothing but prefetch. */
SIMD_INLINE void T(prefetch_lanes)(T(view) v, ptrdiff_t n_classes, ptrdiff_t further, const int to_write)
{
    const ptrdiff_t size = T(size_of_element)(v.type), is_dense = v.vector_stride == 1 && v.lane_stride == n_classes;
    const int is_range = is_dense && n_classes <= TILE; /* longer rows are left to the prefetcher of the processor */
    if (!v.data || !(is_range || v.lane_stride == 1)) return;
    const char *next = v.data + further * v.lane_stride * size;
    const ptrdiff_t step = is_range ? CACHE_LINE : v.vector_stride * size;
    const ptrdiff_t lines = is_range ? LANES * n_classes * size / CACHE_LINE : n_classes;
    UNROLL_4
    for (ptrdiff_t k = 0; k < lines; ++k) {
        if (to_write)
            PREFETCH_TO_WRITE(next + k * step);
        else
            PREFETCH(next + k * step);
    }
}

/* How many samples the first group has. Where samples lie side by side, the vectors of all later groups are then
 * aligned and do not cross from one cache line into the next. */
SIMD_INLINE ptrdiff_t T(first_samples)(const softxent_block *b, int has_output)
{
    const T(view) v =
        has_output ? T(lanes_view)(b->out, b->out_type, b->out_sample_stride, b->out_class_stride, 0, 0)
                   : T(lanes_view)(b->logits, b->logits_type, b->logits_sample_stride, b->logits_class_stride, 0, 0);
    const ptrdiff_t beyond = (ptrdiff_t)((uintptr_t)v.data % sizeof(vec));
    const int is_beside = v.lane_stride == 1 && v.type == SOFTXENT_REAL && v.vector_stride % LANES == 0;
    return is_beside && beyond ? LANES - beyond / (ptrdiff_t)sizeof(real) : LANES;
}

/* The index of the first sample whose target has a bad entry, or of the end of the groups. The groups are cut there:
 * their number may become smaller. */
static ptrdiff_t K(before_bad_group)(T(group) * groups, int *n_groups)
{
    for (int i = 0; i < *n_groups; ++i) {
        T(group) *g = &groups[i];
        const vec n_bad = T(if_counted)(&g->targets, g->n_bad);
        const int good = T(before_bad)(n_bad, g->targets.n_samples), is_bad = good < g->targets.n_samples;
        if (is_bad) *n_groups = i + 1;
        g->targets.n_samples = good, g->out.limit = g->out.room = good;
    }
    const T(group) *last = &groups[*n_groups - 1];
    return last->targets.begin + last->targets.n_samples;
}

static ptrdiff_t K(lane_run)(const softxent_block *b, softxent_op op)
{
    const softxent_target_kind target_kind = target_kind_of(b, op);
    const T(call) call = K(call_of)(b);
    const int has_output = b->out != NULL, resident = b->n_classes <= TILE;
    const int at_once = resident ? GROUPS_AT_ONCE : 1;
    const ptrdiff_t tile_stride = T(tile_stride)(b->n_classes);
    const int can_keep = !resident && has_output && b->out_type == SOFTXENT_REAL && !b->accumulate &&
                         has_trait(op, HAS_EXPS) && !has_trait(op, REREADS_LOGITS);
    vec tiles[GROUPS_AT_ONCE * TILE], densities[GROUPS_AT_ONCE * TILE];
    T(group) groups[GROUPS_AT_ONCE];
    T(labels) labels;
    T(no_labels)(&labels);
    for (int i = 0; i < at_once; ++i)
        T(prepare_group)(&groups[i], &call, tiles + i * tile_stride, densities + i * tile_stride, can_keep);
    ptrdiff_t most = T(first_samples)(b, has_output);
    for (ptrdiff_t begin = 0; begin < b->n_samples;) {
        int n_groups = 0, lanes = LANES, is_bad = 0;
        for (; n_groups < at_once && begin < b->n_samples && lanes == LANES && !is_bad; ++n_groups) {
            lanes = (int)(b->n_samples - begin < most ? b->n_samples - begin : most), most = LANES;
            K(start_lanes)(&groups[n_groups], &labels, begin, lanes);
            begin += groups[n_groups].targets.n_samples, is_bad = groups[n_groups].targets.n_samples < lanes;
        }
        if (resident) K(load_groups)(groups, n_groups, target_kind);
        for (int i = 0; i < n_groups && op != OP_FINISH; ++i) K(lane_max)(&groups[i], op);
        for (int i = 0; i < n_groups && op == OP_RANK; ++i) K(rank_lanes)(&groups[i]);
        for (int i = 0; i < n_groups; ++i) {
            T(prefetch_lanes)(groups[i].logits, b->n_classes, at_once * LANES, 0);
            if (target_kind == DENSE) T(prefetch_lanes)(groups[i].target, b->n_classes, at_once * LANES, 0);
            if (has_output) T(prefetch_lanes)(groups[i].out, b->n_classes, 0, 1);
            if (op == OP_FINISH)
                K(load_lane_stats)(&groups[i]);
            else
                K(lane_sum_any)(&groups[i], op, target_kind);
        }
        if (target_kind == DENSE) {
            const ptrdiff_t end = K(before_bad_group)(groups, &n_groups);
            is_bad |= end < begin, begin = end;
        }
        for (int i = 0; i < n_groups; ++i) K(lane_finish)(&groups[i], op, target_kind);
        for (int i = 0; i < n_groups && has_output; ++i) K(lane_end)(&groups[i], op, target_kind);
        if (resident && has_output) K(store_groups)(groups, n_groups);
        if (is_bad) return begin;
    }
    return b->n_samples;
}
