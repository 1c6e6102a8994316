/* check_target.h - template: checks targets alone: every entry must be a mass, neither negative nor nan, but in samples
 * of weight 0. The kernels
 * check this too, in the sweep that reads a target; this file is for callers who want to know before anything is
 * written. */

SIMD_INLINE vec T(weights_at)(const softxent_block *b, ptrdiff_t begin, int n_samples)
{
    const real *s = (const real *)b->sample_weight + begin * b->sample_weight_stride;
    return T(gather)((const char *)s, SOFTXENT_REAL, b->sample_weight_stride, n_samples, 1);
}

/* Returns n_samples, or the index of the first sample with a bad entry. */
static ptrdiff_t K(check_target)(const softxent_block *b)
{
    const int in_rows = b->target_class_stride == 1, step = in_rows ? 1 : LANES;
    const ptrdiff_t n = b->n_classes, n_vectors = in_rows ? (n + LANES - 1) / LANES : n;
    const vec zero = V(set1)(0);
    vec tile[TILE];
    for (ptrdiff_t i = 0; i < b->n_samples && b->masses; ++i)
        if (!K(has_good_masses)(b, i)) return i;
    if (b->masses) return b->n_samples;
    for (ptrdiff_t begin = 0; begin < b->n_samples; begin += step) {
        const int n_samples = (int)(b->n_samples - begin < step ? b->n_samples - begin : step);
        const T(view) target = T(view_from)(b->target, b->target_type, b->target_sample_stride, b->target_class_stride,
                                            begin, n_samples, n, in_rows);
        vec n_bad = zero;
        for (ptrdiff_t from = 0; from < n_vectors; from += TILE) {
            const int vectors = (int)(n_vectors - from < TILE ? n_vectors - from : TILE);
            K(load_tile)(tile, &target, from, vectors, 0);
            for (int c = 0; c < vectors; ++c) T(count_bad)(&n_bad, tile[c]);
        }
        if (in_rows) n_bad = V(set1)((real)V(hsum)(n_bad));
        if (b->sample_weight) n_bad = V(select)(V(eq)(T(weights_at)(b, begin, n_samples), V(set1)(0)), zero, n_bad);
        const int good = T(before_bad)(n_bad, n_samples);
        if (good < n_samples) return begin + good;
    }
    return b->n_samples;
}
