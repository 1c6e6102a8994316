/* masses.h - template: sparse targets: a few classes of each sample with their masses (block.classes, block.masses).
 *
 * The row kernel takes each entry by itself, between the sweeps: this costs next to nothing. All other kernels form the
 * dense target from the entries, a tile at a time. Entries are read more than once, and another thread may change them
 * meanwhile: so each class is checked each time, where it is used. */

SIMD_INLINE real T(mass_at)(const softxent_block *b, ptrdiff_t sample, ptrdiff_t j)
{
    return ((const volatile real *)b->masses)[sample * b->masses_stride + j];
}

/* Whether every class of a sample is a class or padding, and the mass of every class is a mass. */
static int K(has_good_masses)(const softxent_block *b, ptrdiff_t sample)
{
    const real *s = (const real *)b->sample_weight;
    const int counts = !s || s[sample * b->sample_weight_stride] != 0;
    for (ptrdiff_t j = 0; j < b->n_masses; ++j) {
        const ptrdiff_t class = mass_class(b, sample, j);
        if (class == LABEL_BAD || (class >= 0 && counts && !(T(mass_at)(b, sample, j) >= 0))) return 0;
    }
    return 1;
}

/* Of n samples from `begin` on, the number before the first that has a bad entry. */
static int K(good_masses)(const softxent_block *b, ptrdiff_t begin, int n, int are_checked_later)
{
    int good = are_checked_later ? n : 0;
    while (good < n && K(has_good_masses)(b, begin + good)) ++good;
    return good;
}

/* Loads a tile of the target, sparse or dense, of the n_samples samples from `begin` on. */
static void K(load_target)(const softxent_block *b, const T(view) * target, ptrdiff_t begin, int n_samples, vec *tile,
                           ptrdiff_t from, int vectors)
{
    const int in_rows = target->in_rows;
    if (!b->masses) {
        K(load_tile)(tile, target, from, vectors, 0);
        return;
    }
    for (int c = 0; c < vectors; ++c) tile[c] = V(set1)(0);
    for (int i = 0; i < n_samples; ++i)
        for (ptrdiff_t j = 0; j < b->n_masses; ++j) {
            const ptrdiff_t class = mass_class(b, begin + i, j);
            const ptrdiff_t vector = (in_rows ? class / LANES : class) - from;
            if (class >= 0 && vector >= 0 && vector < vectors)
                T(put_in_lane)(&tile[vector], in_rows ? (int)(class % LANES) : i, 1, T(mass_at)(b, begin + i, j));
        }
}
