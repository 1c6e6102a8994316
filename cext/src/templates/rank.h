/* rank.h - template: how many classes come before a sample's label, and which class is the first with the largest
 * logit. This is for every layout, for `where`, and for any number of classes, because it counts in integers.
 *
 * The row and lane kernels rank what they have in registers anyway, and come here for all else. */

/* The ranking of a tile: the classes of the tile against the label, in every lane. */
typedef struct {
    vec row_max, label_logit, label; /* label: its number among the tile's classes */
    vec n_before, top; /* top: the number of the first class that has row_max, negated; -inf if none has */
} T(ranking);

/* Ranks a tile. The logits of classes that do not count are nan. */
static void K(rank_tile)(T(ranking) * r, const vec *tile, int vectors, int in_rows)
{
    const int step = in_rows ? LANES : 1;

    const vec row_max = r->row_max, label_logit = r->label_logit, label = r->label; /* copies, no alias of the tile */
    const vec zero = V(set1)(0), one = V(set1)(1), from_next = V(set1)((real)step);
    vec n_before = zero, top = V(set1)(-(real)INFINITY), class = V(set1)((real)(vectors * step));
    if (in_rows) class = V(add)(class, T(lane_numbers)());
    for (int c = vectors - 1; c >= 0; --c) {
        class = V(sub)(class, from_next);
        const vec if_equal = V(select)(V(lt)(class, label), one, zero);
        n_before = V(add_where)(V(lt)(label_logit, tile[c]), n_before, one);
        n_before = V(add_where)(V(eq)(label_logit, tile[c]), n_before, if_equal);
        top = V(select)(V(eq)(tile[c], row_max), V(sub)(zero, class), top);
    }
    r->n_before = n_before, r->top = top;
}

/* The samples of a group, in rows or in lanes. */
typedef struct {
    const softxent_block *b;
    T(view) values, where;
    int in_rows, has_where, of_target, n_samples;
    ptrdiff_t begin, n_vectors, n_classes;
} T(field);

SIMD_INLINE T(view) T(view_from)(const void *data, int type, ptrdiff_t sample_stride, ptrdiff_t class_stride,
                                 ptrdiff_t begin, int n_samples, ptrdiff_t n_classes, int in_rows)
{
    const char *first = data ? (const char *)data + begin * sample_stride * T(size_of_element)(type) : NULL;
    return in_rows ? T(rows_view)(first, type, class_stride, n_classes)
                   : T(lanes_view)(first, type, sample_stride, class_stride, n_samples, n_samples);
}

static T(field) K(field_of)(const softxent_block *b, ptrdiff_t begin, int n_samples, int in_rows, int of_target)
{
    const ptrdiff_t n = b->n_classes;
    T(field) f = {.b = b, .in_rows = in_rows, .n_classes = n, .n_vectors = in_rows ? (n + LANES - 1) / LANES : n};
    f.of_target = of_target, f.begin = begin, f.n_samples = n_samples;
    f.has_where = b->where && !of_target;
    f.values = of_target ? T(view_from)(b->target, b->target_type, b->target_sample_stride, b->target_class_stride,
                                        begin, n_samples, n, in_rows)
                         : T(view_from)(b->logits, b->logits_type, b->logits_sample_stride, b->logits_class_stride,
                                        begin, n_samples, n, in_rows);
    if (f.has_where)
        f.where =
            T(view_from)(b->where, BOOLS, b->where_sample_stride, b->where_class_stride, begin, n_samples, n, in_rows);
    return f;
}

/* Loads a tile; entries that do not count become nan. Where an entry that counts is nan, the lane of *n_nan is set. */
static void K(load_field)(vec *tile, const T(field) * f, ptrdiff_t from, int vectors, vec *n_nan)
{
    const vec zero = V(set1)(0), one = V(set1)(1), none = V(set1)((real)NAN);
    vec counts[TILE];
    if (f->of_target)
        K(load_target)(f->b, &f->values, f->begin, f->n_samples, tile, from, vectors);
    else
        K(load_tile)(tile, &f->values, from, vectors, 0);
    if (f->has_where) K(load_tile)(counts, &f->where, from, vectors, 0);
    for (int c = 0; c < vectors; ++c) {
        const ptrdiff_t left = f->in_rows ? f->n_classes - (from + c) * LANES : LANES;
        vec count = f->has_where ? counts[c] : one;
        if (left < LANES) count = T(first_lanes)(count, left, 0);
        *n_nan = V(add_unless)(V(eq)(tile[c], tile[c]), *n_nan, count);
        tile[c] = V(select)(V(eq)(count, zero), none, tile[c]);
    }
}

/* The place of the element of a sample's class. */
SIMD_INLINE ptrdiff_t T(place_in)(const T(view) * v, int sample, ptrdiff_t class)
{
    return v->in_rows ? class * v->lane_stride : sample * v->lane_stride + class * v->vector_stride;
}

/* The results for the samples of a group: one in rows, up to LANES in lanes. */
typedef struct {
    int64_t n_before[LANES], top[LANES];
    int has_nan[LANES];
} T(standing);

/* Two sweeps. The first finds the maximum; the second finds the first class that has it, and counts the classes that
 * come before the label, whose logit is label_logit. */
static void K(rank_field)(const T(field) * f, const int64_t *label, const real *label_logit, T(standing) * standing)
{
    const ptrdiff_t step = f->in_rows ? LANES : 1;
    vec tile[TILE], row_max = V(set1)(-(real)INFINITY), n_nan = V(set1)(0);
    for (ptrdiff_t from = 0; from < f->n_vectors; from += TILE) {
        const int vectors = (int)(f->n_vectors - from < TILE ? f->n_vectors - from : TILE);
        K(load_field)(tile, f, from, vectors, &n_nan);
        for (int c = 0; c < vectors; ++c) row_max = V(max)(tile[c], row_max);
    }
    T(ranking) r;
    r.row_max = f->in_rows ? V(set1)(V(hmax)(row_max)) : row_max;
    r.label_logit = f->in_rows ? V(set1)(label_logit[0]) : V(load)(label_logit);
    real lanes[LANES], tops[LANES];
    V(store)(lanes, n_nan);
    for (int i = 0; i < LANES; ++i) standing->n_before[i] = 0, standing->top[i] = -1, standing->has_nan[i] = 0;
    for (int i = 0; i < LANES; ++i) standing->has_nan[f->in_rows ? 0 : i] |= lanes[i] != 0;
    for (ptrdiff_t from = 0; from < f->n_vectors; from += TILE) {
        const int vectors = (int)(f->n_vectors - from < TILE ? f->n_vectors - from : TILE);
        const int64_t begin = from * step, end = begin + vectors * step;
        K(load_field)(tile, f, from, vectors, &n_nan);
        for (int i = 0; i < LANES; ++i) {
            const int64_t y = label[f->in_rows ? 0 : i];
            lanes[i] = (real)((y < begin ? begin : y > end ? end : y) - begin);
        }
        r.label = V(load)(lanes);
        K(rank_tile)(&r, tile, vectors, f->in_rows);
        V(store)(lanes, r.n_before), V(store)(tops, r.top);
        for (int i = 0; i < LANES; ++i) {
            const int sample = f->in_rows ? 0 : i;
            const int64_t top = tops[i] > 0 - (real)INFINITY ? begin - (int64_t)tops[i] : INT64_MAX,
                          before = standing->top[sample];
            standing->n_before[sample] += (int64_t)lanes[i];
            if (top != INT64_MAX && (before < 0 || top < before)) standing->top[sample] = top;
        }
    }
}

/* The label of each target: the first of its largest entries, or LABEL_NONE if all are nan. */
static void K(target_labels)(const softxent_block *b, ptrdiff_t begin, int n_samples, int in_rows, int64_t *label)
{
    const int64_t none[LANES] = {0};
    real nothing[LANES];
    T(standing) standing;
    const T(field) f = K(field_of)(b, begin, n_samples, in_rows, 1);
    for (int i = 0; i < LANES; ++i) nothing[i] = (real)NAN;
    K(rank_field)(&f, none, nothing, &standing);
    for (int i = 0; i < n_samples; ++i) label[i] = standing.top[i] < 0 ? LABEL_NONE : standing.top[i];
}

SIMD_INLINE void T(store_rank)(const softxent_block *b, ptrdiff_t sample, int64_t rank, int64_t top)
{
    if (b->rank) b->rank[sample * b->rank_stride] = rank;
    if (b->top) b->top[sample * b->top_stride] = top;
}

/* Stores the results of samples that are all ignored. */
SIMD_INLINE void T(store_no_ranks)(const softxent_block *b, ptrdiff_t begin, int n_samples)
{
    for (int i = 0; i < n_samples; ++i) T(store_rank)(b, begin + i, -1, -1);
}

/* Ranks n_samples samples. `labels` are their labels; with targets it only says which samples are ignored. A label that
 * `where` removes comes behind all classes that count. */
static void K(rank_samples)(const softxent_block *b, ptrdiff_t begin, int n_samples, const int64_t *labels, int in_rows)
{
    int64_t label[LANES] = {0};
    real label_logit[LANES] = {0};
    T(standing) standing;
    const T(field) f = K(field_of)(b, begin, n_samples, in_rows, 0);
    if (has_target(b)) K(target_labels)(b, begin, n_samples, in_rows, label);
    for (int i = 0; i < n_samples; ++i)
        if (!has_target(b) || labels[i] == LABEL_IGNORED) label[i] = labels[i];
    for (int i = 0; i < n_samples; ++i) {
        const ptrdiff_t y = (ptrdiff_t)label[i];
        if (y < 0) continue;
        const int is_removed = f.has_where && !f.where.data[T(place_in)(&f.where, i, y)];
        label_logit[i] =
            is_removed ? -(real)INFINITY : T(element)(f.values.data, f.values.type, T(place_in)(&f.values, i, y));
        if (is_removed) label[i] = b->n_classes;
    }
    K(rank_field)(&f, label, label_logit, &standing);
    for (int i = 0; i < n_samples; ++i) {
        const int is_ranked = label[i] != LABEL_IGNORED && !standing.has_nan[i] && standing.top[i] >= 0;
        T(store_rank)(b, begin + i, is_ranked && label[i] >= 0 ? standing.n_before[i] : -1,
                      is_ranked ? standing.top[i] : -1);
    }
}
