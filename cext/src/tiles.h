/* tiles.h - template: strided arrays, a few vectors at a time, in the kernels' own type.
 *
 * A tile is up to TILE vectors. In rows a vector holds LANES classes of one sample; in lanes, one class of LANES
 * samples. Where the lanes lie side by side in memory a tile is loaded as it is, where the vectors do it is transposed
 * in registers, else it is gathered. Half precision is widened on the way in and rounded on the way out. */
#ifndef SOFTXENT_TILES
#  define SOFTXENT_TILES
enum { TILE = LANE_KERNEL_CLASSES, BOOLS = -1 /* an element type beside the public ones: one byte each */ };
#endif

/* A part of a strided array: LANES samples, or one. */
typedef struct {
    char *data; /* the first lane of the first vector */
    ptrdiff_t lane_stride, vector_stride;
    ptrdiff_t limit; /* lanes that there are: of each vector in lanes, of all of them together in rows */
    int in_rows, type;
} T(view);

SIMD_INLINE T(view) T(rows_view)(const void *data, int type, ptrdiff_t class_stride, ptrdiff_t n_classes)
{
    const T(view) v = {(char *)data, class_stride, class_stride * LANES, n_classes, 1, type};
    return v;
}

SIMD_INLINE T(view)
    T(lanes_view)(const void *data, int type, ptrdiff_t sample_stride, ptrdiff_t class_stride, int lanes)
{
    const T(view) v = {(char *)data, sample_stride, class_stride, lanes, 0, type};
    return v;
}

SIMD_INLINE ptrdiff_t T(size_of_element)(int type)
{
    return type == SOFTXENT_REAL ? (ptrdiff_t)sizeof(real) : type == BOOLS ? 1 : 2;
}

SIMD_INLINE char *T(at)(const T(view) * v, ptrdiff_t vector)
{
    return v->data + vector * v->vector_stride * T(size_of_element)(v->type);
}

/* The lanes that vector number `vector` has, or more. */
SIMD_INLINE ptrdiff_t T(lanes_of)(const T(view) * v, ptrdiff_t vector)
{
    return v->in_rows ? v->limit - vector * LANES : v->limit;
}

/* ---- Elements -------------------------------------------------------------------------------------------------- */

SIMD_INLINE real T(element)(const char *p, int type, ptrdiff_t i)
{
    switch (type) {
    case SOFTXENT_REAL: return ((const real *)p)[i];
    case SOFTXENT_FLOAT16: return (real)float_of_f16(((const uint16_t *)p)[i]);
    case SOFTXENT_BFLOAT16: return (real)float_of_bf16(((const uint16_t *)p)[i]);
    default: return p[i] != 0;
    }
}

SIMD_INLINE void T(set_element)(char *p, int type, ptrdiff_t i, real x)
{
    if (type == SOFTXENT_REAL)
        ((real *)p)[i] = x;
    else
        ((uint16_t *)p)[i] = type == SOFTXENT_FLOAT16 ? f16_of_float((float)x) : bf16_of_float((float)x);
}

SIMD_INLINE vec T(gather)(const char *p, int type, ptrdiff_t stride, ptrdiff_t n, real fill)
{
    real lanes[LANES];
    for (ptrdiff_t i = 0; i < LANES; ++i) lanes[i] = i < n ? T(element)(p, type, i * stride) : fill;
    return V(load)(lanes);
}

SIMD_INLINE void T(scatter)(char *p, int type, ptrdiff_t stride, ptrdiff_t n, vec v)
{
    real lanes[LANES];
    V(store)(lanes, v);
    for (ptrdiff_t i = 0; i < LANES && i < n; ++i) T(set_element)(p, type, i * stride, lanes[i]);
}

/* ---- Vectors: their first n lanes, side by side in memory; the others are `fill`, or stay unwritten -------------- */

SIMD_INLINE vec T(load_vector)(const char *p, int type, ptrdiff_t n, real fill)
{
    if (type == SOFTXENT_REAL) return n >= LANES ? V(load)((const real *)p) : V(load_till)((const real *)p, n, fill);
#if HALF_PRECISION
    if (n >= LANES && type == SOFTXENT_FLOAT16) return widen_f16((const uint16_t *)p);
    if (n >= LANES && type == SOFTXENT_BFLOAT16) return widen_bf16((const uint16_t *)p);
#endif
    return T(gather)(p, type, 1, n, fill);
}

SIMD_INLINE void T(store_vector)(char *p, int type, ptrdiff_t n, vec v)
{
    if (type == SOFTXENT_REAL) {
        if (n >= LANES)
            V(store)((real *)p, v);
        else
            V(store_till)((real *)p, n, v);
        return;
    }
#if HALF_PRECISION
    if (n >= LANES && type == SOFTXENT_FLOAT16) {
        narrow_f16((uint16_t *)p, v);
        return;
    }
    if (n >= LANES) {
        narrow_bf16((uint16_t *)p, v);
        return;
    }
#endif
    T(scatter)(p, type, 1, n, v);
}

/* ---- Tiles ----------------------------------------------------------------------------------------------------- */

/* Vectors from number `from` on. Writes whole groups of LANES vectors where it transposes. */
static void K(load_tile)(vec *tile, T(view) v, ptrdiff_t from, int vectors, real fill)
{
    const ptrdiff_t size = T(size_of_element)(v.type);
    const char *p = T(at)(&v, from);
    if (v.lane_stride == 1) {
        for (int c = 0; c < vectors; ++c)
            tile[c] = T(load_vector)(p + c * v.vector_stride * size, v.type, T(lanes_of)(&v, from + c), fill);
    } else if (v.vector_stride == 1) {
        for (int c = 0; c < vectors; c += LANES) {
            for (int i = 0; i < LANES; ++i)
                tile[c + i] = i < v.limit
                                  ? T(load_vector)(p + (i * v.lane_stride + c) * size, v.type, vectors - c, fill)
                                  : V(set1)(fill);
            V(transpose)(tile + c);
        }
    } else {
        for (int c = 0; c < vectors; ++c)
            tile[c] = T(gather)(p + c * v.vector_stride * size, v.type, v.lane_stride, T(lanes_of)(&v, from + c), fill);
    }
}

/* The tile is spent: transposed in place on its way out. */
static void K(store_tile)(vec *tile, T(view) v, ptrdiff_t from, int vectors)
{
    const ptrdiff_t size = T(size_of_element)(v.type);
    char *p = T(at)(&v, from);
    if (v.lane_stride == 1) {
        for (int c = 0; c < vectors; ++c)
            T(store_vector)(p + c * v.vector_stride * size, v.type, T(lanes_of)(&v, from + c), tile[c]);
    } else if (v.vector_stride == 1) {
        for (int c = 0; c < vectors; c += LANES) {
            V(transpose)(tile + c);
            for (int i = 0; i < LANES && i < v.limit; ++i)
                T(store_vector)(p + (i * v.lane_stride + c) * size, v.type, vectors - c, tile[c + i]);
        }
    } else {
        for (int c = 0; c < vectors; ++c)
            T(scatter)(p + c * v.vector_stride * size, v.type, v.lane_stride, T(lanes_of)(&v, from + c), tile[c]);
    }
}

/* Entries of a tile, by the number that its vectors and lanes have in a row: class, or (in lanes) class and lane. */
SIMD_INLINE real T(entry)(const vec *tile, int vector, int lane)
{
    real lanes[LANES];
    V(store)(lanes, tile[vector]);
    return lanes[lane];
}

SIMD_INLINE void T(set_entry)(vec *tile, int vector, int lane, real x)
{
    real lanes[LANES];
    V(store)(lanes, tile[vector]);
    lanes[lane] = x;
    tile[vector] = V(load)(lanes);
}
