/* tiles.h - template: loads and stores strided arrays, a tile at a time, in the kernels' own type.
 *
 * A tile is up to TILE vectors. In rows a vector holds LANES classes of one sample; in lanes it holds one class of
 * LANES samples. If the lanes lie side by side in memory, a tile is loaded as it is; if the vectors do, it is
 * transposed in registers; otherwise it is gathered. Half precision is widened when it is loaded and rounded when it is
 * stored. */
#ifndef SOFTXENT_TILES
#  define SOFTXENT_TILES
enum { BOOLS = -1 /* an element type beside the public ones: one byte each */ };
#endif

/* A view of a strided array: of LANES samples, or of one. */
typedef struct {
    char *data; /* the first lane of the first vector */
    ptrdiff_t lane_stride, vector_stride;
    ptrdiff_t limit; /* how many lanes exist: in each vector (in lanes), or in all vectors together (in rows) */
    ptrdiff_t room;  /* in lanes: how many samples have memory that may be touched, from the first of these on */
    int in_rows, type;
} T(view);

SIMD_INLINE T(view) T(rows_view)(const void *data, int type, ptrdiff_t class_stride, ptrdiff_t n_classes)
{
    const T(view) v = {(char *)data, class_stride, class_stride * LANES, n_classes, 0, 1, type};
    return v;
}

SIMD_INLINE T(view) T(lanes_view)(const void *data, int type, ptrdiff_t sample_stride, ptrdiff_t class_stride,
                                  int lanes, ptrdiff_t room)
{
    const T(view) v = {(char *)data, sample_stride, class_stride, lanes, room, 0, type};
    return v;
}

SIMD_INLINE ptrdiff_t T(size_of_element)(int type)
{
    return type == SOFTXENT_REAL ? (ptrdiff_t)sizeof(real) : type == BOOLS ? 1 : 2;
}

/* How many lanes vector number `vector` has; the number may be more than LANES. */
SIMD_INLINE ptrdiff_t T(lanes_of)(const T(view) * v, ptrdiff_t vector)
{
    return v->in_rows ? v->limit - vector * LANES : v->limit;
}

SIMD_INLINE vec T(lane_numbers)(void)
{
    static const real numbers[MOST_LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return V(load)(numbers);
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
    real lanes[LANES] = {0}; /* set, because some compilers do not see that the loop fills it */
    for (ptrdiff_t i = 0; i < LANES; ++i) lanes[i] = i < n ? T(element)(p, type, i * stride) : fill;
    return V(load)(lanes);
}

SIMD_INLINE void T(scatter)(char *p, int type, ptrdiff_t stride, ptrdiff_t n, vec v)
{
    real lanes[LANES];
    if (stride == 1 && type == SOFTXENT_REAL) {
        n >= LANES ? V(store)((real *)p, v) : V(store_till)((real *)p, n, v);
        return;
    }
    V(store)(lanes, v);
    for (ptrdiff_t i = 0; i < LANES && i < n; ++i) T(set_element)(p, type, i * stride, lanes[i]);
}

/* ---- Vectors: their first n lanes, side by side in memory; the others are `fill`, or stay unwritten -------------- */

SIMD_INLINE vec T(load_vector)(const char *p, int type)
{
#if HALF_PRECISION
    if (type == SOFTXENT_FLOAT16) return widen_f16((const uint16_t *)p);
    if (type == SOFTXENT_BFLOAT16) return widen_bf16((const uint16_t *)p);
#endif
    if (type == SOFTXENT_REAL) return V(load)((const real *)p);
    real lanes[LANES]; /* a loop that compilers vectorise */
    for (int i = 0; i < LANES; ++i) lanes[i] = (real)(p[i] != 0);
    return V(load)(lanes);
}

SIMD_INLINE void T(store_vector)(char *p, int type, vec v)
{
#if HALF_PRECISION
    if (type == SOFTXENT_FLOAT16) narrow_f16((uint16_t *)p, v);
    if (type == SOFTXENT_BFLOAT16) narrow_bf16((uint16_t *)p, v);
#endif
    if (type == SOFTXENT_REAL) V(store)((real *)p, v);
}

/* load_vector_till loads half precision and bytes by way of a small array; store_vector_till stores them so. */
SIMD_INLINE vec T(load_vector_till)(const char *p, int type, ptrdiff_t n, real fill)
{
    if (type == SOFTXENT_REAL) return V(load_till)((const real *)p, n, fill);
    if (n >= LANES) return T(load_vector)(p, type);
    uint16_t there[LANES] = {0};
    memcpy(there, p, (size_t)((n > 0 ? n : 0) * T(size_of_element)(type)));
    real lanes[LANES];
    V(store)(lanes, T(load_vector)((const char *)there, type));
    return V(load_till)(lanes, n, fill);
}

SIMD_INLINE void T(store_vector_till)(char *p, int type, ptrdiff_t n, vec v)
{
    if (type == SOFTXENT_REAL) {
        V(store_till)((real *)p, n, v);
    } else {
        uint16_t all[LANES] = {0};
        T(store_vector)((char *)all, type, v);
        memcpy(p, all, (size_t)((n >= LANES ? LANES : n > 0 ? n : 0) * T(size_of_element)(type)));
    }
}

/* ---- Tiles ----------------------------------------------------------------------------------------------------- */

/* Whether the vectors from number `from` on have all their lanes. */
SIMD_INLINE int T(is_full)(const T(view) * v, ptrdiff_t from, int vectors)
{
    return T(lanes_of)(v, from + vectors - 1) >= LANES;
}

/* How many samples of a group may be loaded and stored a whole vector at a time from class c on. The group must have no
 * gaps, because such a vector reaches into the samples that follow. From memory a whole load is far faster than a
 * masked load. */
SIMD_INLINE int T(samples_with_slack)(T(view) v, int vectors, int c)
{
    int n = vectors == v.lane_stride ? (int)v.limit : 0;
    while (n > 0 && (n - 1) * v.lane_stride + c + LANES > v.room * v.lane_stride) --n;
    return n;
}

/* Loads one vector of each of LANES samples and transposes them. It happens in registers if `type` is a constant. */
SIMD_INLINE void T(load_transposed)(vec *tile, const char *p, ptrdiff_t step, const int type)
{
    vec r[LANES];
    UNROLL
    for (int i = 0; i < LANES; ++i) r[i] = T(load_vector)(p + i * step, type);
    V(transpose)(r);
    UNROLL
    for (int i = 0; i < LANES; ++i) tile[i] = r[i];
}

/* Transposes a tile and stores up to LANES classes of `samples` samples. The samples are stored in order, because a
 * whole vector reaches into the next sample, which then overwrites what it wrote there. */
SIMD_INLINE void T(store_transposed)(const vec *tile, char *p, ptrdiff_t step, int classes, int samples,
                                     int n_with_slack, const int type)
{
    vec r[LANES], rest[LANES];
    UNROLL
    for (int i = 0; i < LANES; ++i) r[i] = tile[i];
    V(transpose)(r);
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        if (i < n_with_slack)
            T(store_vector)(p + i * step, type, r[i]);
        else if (type != SOFTXENT_REAL)
            rest[i] = r[i];
        else if (i < samples)
            V(store_till)((real *)(p + i * step), classes, r[i]);
    }
    for (int i = n_with_slack; i < samples && type != SOFTXENT_REAL; ++i)
        T(store_vector_till)(p + i * step, type, classes, rest[i]);
}

static void K(load_halves)(vec *tile, const char *p, ptrdiff_t step, int type)
{
    if (type == SOFTXENT_FLOAT16)
        T(load_transposed)(tile, p, step, SOFTXENT_FLOAT16);
    else
        T(load_transposed)(tile, p, step, SOFTXENT_BFLOAT16);
}

static void K(store_halves)(const vec *tile, char *p, ptrdiff_t step, int classes, int samples, int n_with_slack,
                            int type)
{
    if (type == SOFTXENT_FLOAT16)
        T(store_transposed)(tile, p, step, classes, samples, n_with_slack, SOFTXENT_FLOAT16);
    else
        T(store_transposed)(tile, p, step, classes, samples, n_with_slack, SOFTXENT_BFLOAT16);
}

/* The kernels' own type (is_real) has code of its own; all types that are converted share the other code. */
SIMD_INLINE void T(load_tile_of)(vec *tile, T(view) v, ptrdiff_t from, int vectors, real fill, const int is_real)
{
    const int type = is_real ? SOFTXENT_REAL : v.type, is_half = HALF_PRECISION && !is_real && type != BOOLS;
    const ptrdiff_t size = T(size_of_element)(type), step = v.vector_stride * size;
    const char *p = v.data + from * step;
    if (LANES == 1) v.lane_stride = 1; /* with one lane there is nothing beside it */
    if (v.lane_stride == 1 && (T(is_full)(&v, from, vectors) || v.room >= LANES)) {
        for (int c = 0; c < vectors; ++c) tile[c] = T(load_vector)(p + c * step, type);
    } else if (v.lane_stride == 1) {
        for (int c = 0; c < vectors; ++c)
            tile[c] = T(load_vector_till)(p + c * step, type, T(lanes_of)(&v, from + c), fill);
    } else if (v.vector_stride == 1) {
        for (int c = 0; c < vectors; c += LANES) {
            const int n_with_slack = T(samples_with_slack)(v, vectors, c);
            if (n_with_slack == LANES && (is_real || is_half)) {
                if (is_real)
                    T(load_transposed)(tile + c, p + c * size, v.lane_stride * size, SOFTXENT_REAL);
                else
                    K(load_halves)(tile + c, p + c * size, v.lane_stride * size, type);
                continue;
            }
            int i = 0;
            for (; i < n_with_slack; ++i) tile[c + i] = T(load_vector)(p + (i * v.lane_stride + c) * size, type);
            for (; i < v.limit; ++i)
                tile[c + i] = T(load_vector_till)(p + (i * v.lane_stride + c) * size, type, vectors - c, fill);
            for (; i < LANES; ++i) tile[c + i] = V(set1)(fill);
            V(transpose)(tile + c);
        }
    } else {
        for (int c = 0; c < vectors; ++c)
            tile[c] = T(gather)(p + c * step, type, v.lane_stride, T(lanes_of)(&v, from + c), fill);
    }
}

/* Stores a tile. It is transposed in place, so its contents are lost. */
SIMD_INLINE void T(store_tile_of)(vec *tile, T(view) v, ptrdiff_t from, int vectors, const int is_real)
{
    const int type = is_real ? SOFTXENT_REAL : v.type, is_half = HALF_PRECISION && !is_real && type != BOOLS;
    const ptrdiff_t size = T(size_of_element)(type), step = v.vector_stride * size;
    char *p = v.data + from * step;
    if (LANES == 1) v.lane_stride = 1;
    if (v.lane_stride == 1 && T(is_full)(&v, from, vectors)) {
        for (int c = 0; c < vectors; ++c) T(store_vector)(p + c * step, type, tile[c]);
    } else if (v.lane_stride == 1) {
        for (int c = 0; c < vectors; ++c) T(store_vector_till)(p + c * step, type, T(lanes_of)(&v, from + c), tile[c]);
    } else if (v.vector_stride == 1) {
        const int n_with_slack = T(samples_with_slack)(v, vectors, (vectors - 1) / LANES * LANES);
        if (is_real && vectors <= LANES) {
            T(store_transposed)(tile, p, v.lane_stride * size, vectors, (int)v.limit, n_with_slack, SOFTXENT_REAL);
            return;
        }
        if (is_half && vectors <= LANES) {
            K(store_halves)(tile, p, v.lane_stride * size, vectors, (int)v.limit, n_with_slack, type);
            return;
        }
        for (int c = 0; c < vectors; c += LANES) V(transpose)(tile + c);
        int i = 0;
        for (; i < n_with_slack; ++i) /* in order: what reaches into the next sample is overwritten by it */
            for (int c = 0; c < vectors; c += LANES)
                T(store_vector)(p + (i * v.lane_stride + c) * size, type, tile[c + i]);
        for (; i < v.limit; ++i)
            for (int c = 0; c < vectors; c += LANES)
                T(store_vector_till)(p + (i * v.lane_stride + c) * size, type, vectors - c, tile[c + i]);
    } else {
        for (int c = 0; c < vectors; ++c)
            T(scatter)(p + c * step, type, v.lane_stride, T(lanes_of)(&v, from + c), tile[c]);
    }
}

/* Loads `vectors` vectors, from number `from` on. Lanes that do not exist are `fill`, or where v->room allows it
 * whatever follows in memory. Whole groups of LANES vectors are written to `tile`. */
static void K(load_reals)(vec *tile, const T(view) * v, ptrdiff_t from, int vectors, real fill)
{
    T(load_tile_of)(tile, *v, from, vectors, fill, 1);
}

static void K(store_reals)(vec *tile, const T(view) * v, ptrdiff_t from, int vectors)
{
    T(store_tile_of)(tile, *v, from, vectors, 1);
}

static void K(load_tile)(vec *tile, const T(view) * v, ptrdiff_t from, int vectors, real fill)
{
    if (v->type == SOFTXENT_REAL)
        K(load_reals)(tile, v, from, vectors, fill);
    else
        T(load_tile_of)(tile, *v, from, vectors, fill, 0);
}

static void K(store_tile)(vec *tile, const T(view) * v, ptrdiff_t from, int vectors)
{
    if (v->type == SOFTXENT_REAL)
        K(store_reals)(tile, v, from, vectors);
    else
        T(store_tile_of)(tile, *v, from, vectors, 0);
}

SIMD_INLINE void T(put_in_lane)(vec *v, int lane, real keep, real x)
{
    real lanes[LANES];
    V(store)(lanes, *v);
    lanes[lane] = keep * lanes[lane] + x;
    *v = V(load)(lanes);
}

/* Puts x into one lane, in registers alone. */
SIMD_INLINE vec T(put_lane)(vec v, int lane, real x)
{
    return V(select)(V(eq)(T(lane_numbers)(), V(set1)((real)lane)), V(set1)(x), v);
}

/* The first n lanes of v, and `fill` in the others. */
SIMD_INLINE vec T(first_lanes)(vec v, ptrdiff_t n, real fill)
{
    return V(select)(V(lt)(T(lane_numbers)(), V(set1)((real)n)), v, V(set1)(fill));
}
