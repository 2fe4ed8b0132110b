/* Products of bytes, and the scan of lists, for index/ann/native.py, which loads this by ctypes.
 *
 * Vectors are unsigned bytes, a code plus 128, as faiss stores them. Queries are signed bytes of 7
 * bits, so that two products of bytes fit into 16 bits (AVX2). Every product is exact.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = 8, STEP = 32, OFFSET = 128, CHUNK = 256, MAX_DIM = 4096, LINE = 64, AHEAD = 2048 };

/* Queries (count, dim); dim is a multiple of STEP. base: OFFSET times the sum of each. */
struct queries {
    int64_t dim, count;
    const int8_t **codes;
    int32_t *base;
};

/* For each of TILE rows, `stride` bytes apart, its largest product with a query. */
typedef void tile_fn(const struct queries *queries, const uint8_t *rows, int64_t stride,
                     int32_t *out);

static void tile_portable(const struct queries *queries, const uint8_t *rows, int64_t stride,
                          int32_t *out)
{
    for (int t = 0; t < TILE; t++, rows += stride) {
        out[t] = INT32_MIN;
        for (int64_t j = 0; j < queries->count; j++) {
            int32_t sum = -queries->base[j];
            for (int64_t d = 0; d < queries->dim; d++)
                sum += (int32_t)rows[d] * queries->codes[j][d];
            out[t] = sum > out[t] ? sum : out[t];
        }
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

/* Eight accumulators of a row each -> the eight rows' sums. */
__attribute__((target("avx2"))) static inline __m256i sums(const __m256i *a)
{
    __m256i low = _mm256_hadd_epi32(_mm256_hadd_epi32(a[0], a[1]), _mm256_hadd_epi32(a[2], a[3]));
    __m256i high = _mm256_hadd_epi32(_mm256_hadd_epi32(a[4], a[5]), _mm256_hadd_epi32(a[6], a[7]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                            _mm256_permute2x128_si256(low, high, 0x31));
}

#define MULTIPLY_AVX2(sum, x, q) \
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, q), _mm256_set1_epi16(1)))

#define DEFINE_TILE(name, isa, MULTIPLY)                                                          \
    __attribute__((target(isa))) static void name(const struct queries *queries,                  \
                                                  const uint8_t *rows, int64_t stride,            \
                                                  int32_t *out)                                   \
    {                                                                                             \
        __m256i best = _mm256_set1_epi32(INT32_MIN);                                              \
        for (int64_t j = 0; j < queries->count; j++) {                                            \
            __m256i a[TILE] = {_mm256_setzero_si256()};                                           \
            for (int64_t d = 0; d < queries->dim; d += STEP) {                                    \
                __m256i q = _mm256_loadu_si256((const __m256i *)(queries->codes[j] + d));         \
                for (int t = 0; t < TILE; t++) {                                                  \
                    __m256i x = _mm256_loadu_si256((const __m256i *)(rows + t * stride + d));     \
                    a[t] = MULTIPLY(a[t], x, q);                                                  \
                }                                                                                 \
            }                                                                                     \
            __m256i base = _mm256_set1_epi32(queries->base[j]);                                   \
            best = _mm256_max_epi32(best, _mm256_sub_epi32(sums(a), base));                       \
        }                                                                                         \
        _mm256_storeu_si256((__m256i *)out, best);                                                \
    }

DEFINE_TILE(tile_avx2, "avx2", MULTIPLY_AVX2)
DEFINE_TILE(tile_avx512_vnni, "avx2,avx512vl,avx512vnni", _mm256_dpbusd_epi32)
DEFINE_TILE(tile_avx_vnni, "avx2,avxvnni", _mm256_dpbusd_avx_epi32)
#endif

/* The function of that instruction set, NULL if the processor lacks it. */
static tile_fn *tile_of(const char *isa)
{
    if (!strcmp(isa, "portable"))
        return tile_portable;
#if defined(__x86_64__)
    if (!strcmp(isa, "avx512-vnni") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni"))
        return tile_avx512_vnni;
    if (!strcmp(isa, "avx-vnni") && __builtin_cpu_supports("avxvnni"))
        return tile_avx_vnni;
    if (!strcmp(isa, "avx2") && __builtin_cpu_supports("avx2"))
        return tile_avx2;
#endif
    return NULL;
}

int is_supported(const char *isa) { return tile_of(isa) != NULL; }

static void add_query(struct queries *queries, const int8_t *codes)
{
    int32_t sum = 0;
    for (int64_t d = 0; d < queries->dim; d++)
        sum += codes[d];
    queries->codes[queries->count] = codes;
    queries->base[queries->count++] = OFFSET * sum;
}

/* As tile_fn, for rows (size, dim), after which `left` more follow in memory. */
static void maxima(tile_fn *tile, const struct queries *queries, const uint8_t *rows, int64_t size,
                   int64_t left, int64_t dim, int32_t *out)
{
    uint8_t copied[TILE * MAX_DIM];
    int32_t products[TILE];
    for (int64_t i = 0; i < size; i += TILE, rows += TILE * dim) {
        int64_t here = size - i < TILE ? size - i : TILE;
        /* The last component that is read, of the padding too, must be within the rows. */
        if (here == TILE && (i + TILE - 1) * dim + queries->dim <= (size + left) * dim) {
            for (int64_t d = 0; d < TILE * dim; d += LINE)
                __builtin_prefetch(rows + AHEAD + d);
            tile(queries, rows, dim, out + i);
            continue;
        }
        for (int64_t t = 0; t < here; t++)
            memcpy(copied + t * queries->dim, rows + t * dim, dim);
        tile(queries, copied, queries->dim, products);
        memcpy(out + i, products, here * sizeof *out);
    }
}

/* out (requests, size): the largest product of each of rows (size, dim) with the `count` queries of
 * each request (requests, count, padded). */
void multiply(const char *isa, const uint8_t *rows, int64_t size, int64_t dim, const int8_t *codes,
              int64_t padded, int64_t requests, int64_t count, int32_t *out)
{
    tile_fn *tile = tile_of(isa);
    const int8_t *pointers[count];
    int32_t base[count];
    for (int64_t start = 0; start < size; start += CHUNK) /* which stays in the first cache */
        for (int64_t r = 0; r < requests; r++) {
            int64_t here = size - start < CHUNK ? size - start : CHUNK;
            struct queries queries = {padded, 0, pointers, base};
            for (int64_t j = 0; j < count; j++)
                add_query(&queries, codes + (r * count + j) * padded);
            maxima(tile, &queries, rows + start * dim, here, size - start - here, dim,
                   out + r * size + start);
        }
}

/* Replace the least of a min-heap. */
static void replace_least(int32_t *heap, int64_t size, int32_t value)
{
    int64_t at = 0;
    for (int64_t child; (child = 2 * at + 1) < size; at = child) {
        child += child + 1 < size && heap[child + 1] < heap[child];
        if (heap[child] >= value)
            break;
        heap[at] = heap[child];
    }
    heap[at] = value;
}

/* What a query allows. Each array may be NULL. */
struct filter {
    const int32_t *categories; /* of each row */
    const uint8_t *passes;     /* of each category */
    const float *penalties;    /* of each row: 0 if it is allowed */
    const int64_t *excluded;   /* rows, ascending */
    int64_t excluded_size;
};

static int compare_rows(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static int is_allowed(const struct filter *filter, int64_t row)
{
    return (!filter->passes || filter->passes[filter->categories[row]]) &&
           (!filter->penalties || filter->penalties[row] == 0) &&
           !(filter->excluded_size && bsearch(&row, filter->excluded, filter->excluded_size,
                                              sizeof row, compare_rows));
}

struct lists {
    const uint8_t *const *codes; /* of each list (size, dim) */
    const int64_t *const *rows;  /* of each list (size,) */
    const int64_t *sizes;
    int64_t count, dim, padded;
};

/* Scan the lists of `order` as long as their bounds exceed the k-th best product.
 *
 * bounds (count, lists): assumed best product of a list with each query, in units of products.
 * heap (k,): ascending, products of the k best so far. slack: by so much less than the k-th best a
 * product may be and still belong to an item that is better.
 * found_rows, found: with room for all items of these lists. Returns how many are found. */
int64_t scan_lists(const char *isa, const struct lists *lists, const struct filter *filter,
                   const int8_t *codes, int64_t count, const float *bounds, const int64_t *order,
                   int64_t order_size, float caution, int32_t slack, int32_t *heap, int64_t k,
                   int64_t *found_rows, int32_t *found)
{
    tile_fn *tile = tile_of(isa);
    const int8_t *pointers[count];
    int32_t base[count], best[CHUNK];
    int64_t total = 0, kept = 0;
    for (int64_t i = 0; i < order_size; i++) {
        int64_t list = order[i], size = lists->sizes[list];
        struct queries queries = {lists->padded, 0, pointers, base};
        for (int64_t j = 0; j < count; j++)
            if (bounds[j * lists->count + list] > (float)heap[0] - caution)
                add_query(&queries, codes + j * lists->padded);
        if (!queries.count)
            break; /* the lists that follow have lower bounds */
        for (int64_t start = 0; start < size; start += CHUNK) {
            int64_t here = size - start < CHUNK ? size - start : CHUNK;
            maxima(tile, &queries, lists->codes[list] + start * lists->dim, here,
                   size - start - here, lists->dim, best);
            for (int64_t t = 0; t < here; t++) {
                if (best[t] < heap[0] - slack)
                    continue;
                int64_t row = lists->rows[list][start + t];
                if (!is_allowed(filter, row))
                    continue;
                found_rows[total] = row;
                found[total++] = best[t];
                if (best[t] > heap[0])
                    replace_least(heap, k, best[t]);
            }
        }
    }
    for (int64_t i = 0; i < total; i++) /* the k-th best is higher now */
        if (found[i] >= heap[0] - slack)
            found_rows[kept++] = found_rows[i];
    return kept;
}
