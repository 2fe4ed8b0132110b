/* Products of bytes, and the scan of lists, for index/ann/native.py, which loads this by ctypes.
 *
 * Vectors are unsigned bytes, a code plus 128, as faiss stores them. Queries are signed bytes of 7
 * bits, so that two products of bytes fit into 16 bits (AVX2). Every product is exact.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_QUERY_CODE 63.0f
#define MIN_LARGEST 1e-30f /* in place of a largest component of 0 */
#define FLOAT_ERROR 1e-5   /* of |interest| |vector|: more than float32 loses in a sum */

enum { TILE = 16, STEP = 32, OFFSET = 128, CHUNK = 256, MAX_DIM = 4096, LINE = 64, AHEAD = 2048 };

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

/* The components of 8 rows, 4 at a time: columns[i] has components 4 i to 4 i + 3 of every row. So
 * the products of a row are in one place, and need not be added across a register. */
__attribute__((target("avx2"))) static inline void transpose_256(const uint8_t *rows,
                                                                 int64_t stride, int64_t dim,
                                                                 __m256i *columns)
{
    for (int64_t d = 0; d < dim; d += STEP, columns += 8) {
        __m256i x[8], y[8];
        for (int t = 0; t < 8; t++)
            x[t] = _mm256_loadu_si256((const __m256i *)(rows + t * stride + d));
        for (int t = 0; t < 8; t += 2) {
            y[t] = _mm256_unpacklo_epi32(x[t], x[t + 1]);
            y[t + 1] = _mm256_unpackhi_epi32(x[t], x[t + 1]);
        }
        for (int t = 0; t < 8; t += 4)
            for (int i = 0; i < 2; i++) {
                x[t + 2 * i] = _mm256_unpacklo_epi64(y[t + i], y[t + i + 2]);
                x[t + 2 * i + 1] = _mm256_unpackhi_epi64(y[t + i], y[t + i + 2]);
            }
        for (int i = 0; i < 4; i++) {
            columns[i] = _mm256_permute2x128_si256(x[i], x[i + 4], 0x20);
            columns[i + 4] = _mm256_permute2x128_si256(x[i], x[i + 4], 0x31);
        }
    }
}

/* As transpose_256, of 16 rows. */
__attribute__((target("avx512f"))) static inline void transpose_512(const uint8_t *rows,
                                                                    int64_t stride, int64_t dim,
                                                                    __m512i *columns)
{
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    for (int64_t d = 0; d < dim; d += STEP, columns += 8) {
        __m512i x[8], y[8];
        for (int t = 0; t < 8; t++) {
            const uint8_t *row = rows + t * stride + d;
            x[t] = _mm512_inserti64x4(
                _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)row)),
                _mm256_loadu_si256((const __m256i *)(row + 8 * stride)), 1);
        }
        for (int t = 0; t < 8; t += 2) {
            y[t] = _mm512_unpacklo_epi32(x[t], x[t + 1]);
            y[t + 1] = _mm512_unpackhi_epi32(x[t], x[t + 1]);
        }
        for (int t = 0; t < 8; t += 4)
            for (int i = 0; i < 2; i++) {
                x[t + 2 * i] = _mm512_unpacklo_epi64(y[t + i], y[t + i + 2]);
                x[t + 2 * i + 1] = _mm512_unpackhi_epi64(y[t + i], y[t + i + 2]);
            }
        for (int i = 0; i < 4; i++) {
            columns[i] = _mm512_permutex2var_epi64(x[i], low, x[i + 4]);
            columns[i + 4] = _mm512_permutex2var_epi64(x[i], high, x[i + 4]);
        }
    }
}

static inline int32_t load_4(const int8_t *codes)
{
    int32_t word;
    memcpy(&word, codes, sizeof word);
    return word;
}

#define MULTIPLY_AVX2(sum, x, q) \
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, q), _mm256_set1_epi16(1)))

/* The products of the columns with N queries from the j-th on, which stay in N registers. */
#define MULTIPLY_BLOCK(N, bits, MULTIPLY)                                                         \
    {                                                                                             \
        __m##bits##i sums[N];                                                                     \
        _Pragma("GCC unroll 8") for (int i = 0; i < N; i++) sums[i] =                             \
            _mm##bits##_set1_epi32(-queries->base[j + i]);                                        \
        for (int64_t d = 0; d < queries->dim; d += 4)                                             \
            _Pragma("GCC unroll 8") for (int i = 0; i < N; i++) sums[i] =                         \
                MULTIPLY(sums[i], columns[d / 4],                                                 \
                         _mm##bits##_set1_epi32(load_4(queries->codes[j + i] + d)));              \
        _Pragma("GCC unroll 8") for (int i = 0; i < N; i++) best =                                \
            _mm##bits##_max_epi32(best, sums[i]);                                                 \
        j += N;                                                                                   \
    }

#define DEFINE_TILE(name, isa, bits, MULTIPLY)                                                    \
    __attribute__((target(isa))) static void name(const struct queries *queries,                  \
                                                  const uint8_t *rows, int64_t stride,            \
                                                  int32_t *out)                                   \
    {                                                                                             \
        enum { ROWS_AT_ONCE = bits / 32 };                                                        \
        __m##bits##i columns[MAX_DIM / 4];                                                        \
        for (int t = 0; t < TILE; t += ROWS_AT_ONCE) {                                            \
            __m##bits##i best = _mm##bits##_set1_epi32(INT32_MIN);                                \
            transpose_##bits(rows + t * stride, stride, queries->dim, columns);                   \
            for (int64_t j = 0; j < queries->count;) {                                            \
                int64_t left = queries->count - j;                                                \
                if (left >= 8)                                                                    \
                    MULTIPLY_BLOCK(8, bits, MULTIPLY)                                             \
                else if (left >= 4)                                                               \
                    MULTIPLY_BLOCK(4, bits, MULTIPLY)                                             \
                else if (left >= 2)                                                               \
                    MULTIPLY_BLOCK(2, bits, MULTIPLY)                                             \
                else                                                                              \
                    MULTIPLY_BLOCK(1, bits, MULTIPLY)                                             \
            }                                                                                     \
            _mm##bits##_storeu_si##bits((void *)(out + t), best);                                 \
        }                                                                                         \
    }

DEFINE_TILE(tile_avx2, "avx2", 256, MULTIPLY_AVX2)
DEFINE_TILE(tile_avx_vnni, "avx2,avxvnni", 256, _mm256_dpbusd_avx_epi32)
DEFINE_TILE(tile_avx512_vnni, "avx512f,avx512vnni", 512, _mm512_dpbusd_epi32)
#endif

/* The function of that instruction set, NULL if the processor lacks it. */
static tile_fn *tile_of(const char *isa)
{
    if (!strcmp(isa, "portable"))
        return tile_portable;
#if defined(__x86_64__)
    if (!strcmp(isa, "avx512-vnni") && __builtin_cpu_supports("avx512f") &&
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

/* The k best scores so far: a min-heap once it is full. */
struct best {
    float *scores;
    int64_t size, k;
};

static int compare_scores(const void *left, const void *right)
{
    float a = *(const float *)left, b = *(const float *)right;
    return (a > b) - (a < b);
}

static void add_score(struct best *best, float score)
{
    float *heap = best->scores;
    if (best->size < best->k) {
        heap[best->size++] = score;
        if (best->size == best->k)
            qsort(heap, best->k, sizeof *heap, compare_scores);
        return;
    }
    if (score <= heap[0])
        return;
    int64_t at = 0;
    for (int64_t child; (child = 2 * at + 1) < best->k; at = child) {
        child += child + 1 < best->k && heap[child + 1] < heap[child];
        if (heap[child] >= score)
            break;
        heap[at] = heap[child];
    }
    heap[at] = score;
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

/* norm, error: the largest of the vectors, and of their rounding errors. */
struct head {
    const uint8_t *codes; /* (size, dim) */
    const float *scales;  /* of each vector: it is code * scale */
    const int64_t *rows;
    int64_t size;
    double norm, error;
};

struct lists {
    const uint8_t *const *codes; /* of each list (size, dim) */
    const int64_t *const *rows;  /* of each list (size,) */
    const int64_t *sizes;
    int64_t count, dim, padded;
    double scale, norm, error; /* a vector is code * scale */
};

/* Of a request: `count` interests, for k items. */
struct request {
    const float *interests; /* (count, dim) */
    const float *bounds;    /* (count, lists): assumed best score of a list for an interest */
    int64_t count, k;
    double caution; /* times what the filter takes from the k-th best: lists are scanned further */
    float unit;     /* an interest is code * unit */
    double norm, error; /* the largest of the interests, and of their rounding errors */
};

/* Codes (count, padded) of the interests, and unit, norm and error of the request. */
static void quantize(struct request *request, int64_t dim, int64_t padded, int8_t *codes)
{
    float largest = MIN_LARGEST;
    for (int64_t i = 0; i < request->count * dim; i++)
        largest = fmaxf(largest, fabsf(request->interests[i]));
    request->unit = largest / MAX_QUERY_CODE;
    request->norm = request->error = 0;
    for (int64_t j = 0; j < request->count; j++) {
        double squared_norm = 0, squared_error = 0;
        for (int64_t d = 0; d < padded; d++) {
            float value = d < dim ? request->interests[j * dim + d] : 0;
            float code = rintf(value / request->unit);
            double residual = value - code * (double)request->unit;
            codes[j * padded + d] = (int8_t)code;
            squared_norm += (double)value * value;
            squared_error += residual * residual;
        }
        request->norm = fmax(request->norm, sqrt(squared_norm));
        request->error = fmax(request->error, sqrt(squared_error));
    }
}

/* Of a product of the codes of an interest and a vector, with the largest norm and error of each:
 * |q.x - q'.x'| <= |q - q'| |x| + |q'| |x - x'|, with q', x' rounded. */
static double error_bound(const struct request *request, double norm, double error)
{
    return request->error * norm + (request->norm + request->error) * error +
           FLOAT_ERROR * request->norm * norm;
}

/* Scores of the head, and the k best of those that are allowed. Returns by how much the filter
 * lowers the k-th best, below 0 if fewer than k are allowed. */
static float search_head(tile_fn *tile, const struct request *request, const struct head *head,
                         const struct lists *lists, const struct filter *filter,
                         const struct queries *queries, float *scores, struct best *best)
{
    int32_t products[CHUNK];
    float *others = malloc((request->k + 1) * sizeof *others), taken = -1;
    struct best unfiltered = {others, 0, request->k};
    for (int64_t start = 0; start < head->size; start += CHUNK) {
        int64_t here = head->size - start < CHUNK ? head->size - start : CHUNK;
        maxima(tile, queries, head->codes + start * lists->dim, here, head->size - start - here,
               lists->dim, products);
        for (int64_t t = 0; t < here; t++) {
            float score = products[t] * (request->unit * head->scales[start + t]);
            int is_better = unfiltered.size < request->k || score > others[0];
            if (is_better)
                add_score(&unfiltered, score);
            scores[start + t] = score;
            if ((best->size < best->k || score > best->scores[0]) &&
                is_allowed(filter, head->rows[start + t]))
                add_score(best, score);
        }
    }
    if (best->size == best->k)
        taken = others[0] - best->scores[0];
    free(others);
    return taken;
}

/* Each list is scanned for the interests whose bound exceeds the k-th best score of the head less
 * the caution: what is found raises the score to reach, but not this, so that what is scanned does
 * not depend on the kernel that an index was tuned with. */
static int64_t search_lists(tile_fn *tile, const struct request *request,
                            const struct lists *lists, const struct filter *filter,
                            const int8_t *codes, struct queries *queries, float caution,
                            float slack, struct best *best, int64_t *rows, float *scores)
{
    float unit = (float)(request->unit * lists->scale);
    float threshold = best->scores[0] - caution;
    int64_t found = 0;
    int32_t products[CHUNK];
    for (int64_t list = 0; list < lists->count; list++) {
        int64_t members = lists->sizes[list];
        queries->count = 0;
        for (int64_t j = 0; j < request->count; j++)
            if (request->bounds[j * lists->count + list] > threshold)
                add_query(queries, codes + j * lists->padded);
        for (int64_t start = 0; start < members && queries->count; start += CHUNK) {
            int64_t here = members - start < CHUNK ? members - start : CHUNK;
            maxima(tile, queries, lists->codes[list] + start * lists->dim, here,
                   members - start - here, lists->dim, products);
            for (int64_t t = 0; t < here; t++) {
                float score = products[t] * unit;
                if (score < best->scores[0] - slack)
                    continue;
                int64_t row = lists->rows[list][start + t];
                if (!is_allowed(filter, row))
                    continue;
                add_score(best, score);
                rows[found] = row;
                scores[found++] = score;
            }
        }
    }
    return found;
}

/* Rows that may be among the k best, in no order: of the head, and of the lists whose bounds exceed
 * the k-th best score. rows, scores: with room for every item. Returns how many there are; -1 if
 * the head has fewer than k items that are allowed. */
int64_t search(const char *isa, struct request *request, const struct head *head,
               const struct lists *lists, const struct filter *filter, int64_t *rows, float *scores)
{
    const int8_t *pointers[request->count];
    int8_t codes[request->count * lists->padded];
    int32_t base[request->count];
    struct queries queries = {lists->padded, 0, pointers, base};
    struct best best = {malloc((request->k + 1) * sizeof(float)), 0, request->k};
    tile_fn *tile = tile_of(isa);
    int64_t kept = -1;
    quantize(request, lists->dim, lists->padded, codes);
    for (int64_t j = 0; j < request->count; j++)
        add_query(&queries, codes + j * lists->padded);
    /* By so much the scores of two items may be wrong together. */
    float slack = (float)(2 * fmax(error_bound(request, head->norm, head->error),
                                   error_bound(request, lists->norm, lists->error)));
    float taken = search_head(tile, request, head, lists, filter, &queries, scores, &best);
    if (taken >= 0) {
        float *listed = scores + head->size;
        int64_t *found = rows + head->size;
        int64_t count = search_lists(tile, request, lists, filter, codes, &queries,
                                     (float)(request->caution * taken), slack, &best, found,
                                     listed);
        float least = best.scores[0] - slack; /* which is higher now */
        kept = 0;
        for (int64_t i = 0; i < head->size; i++)
            if (scores[i] >= least && is_allowed(filter, head->rows[i]))
                rows[kept++] = head->rows[i];
        for (int64_t i = 0; i < count; i++)
            if (listed[i] >= least)
                rows[kept++] = found[i];
    }
    qsort(rows, kept > 0 ? kept : 0, sizeof *rows, compare_rows);
    free(best.scores);
    return kept;
}

enum { LANES = 8, ROWS = 4 };
typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float))));

/* Interests (groups, dim, LANES): LANES of them at a time, the last repeated. */
struct group {
    lanes *components;
    int64_t count, dim;
};

static void transpose(const struct request *request, struct group *groups)
{
    for (int64_t g = 0; g < groups->count; g++)
        for (int64_t d = 0; d < groups->dim; d++)
            for (int64_t lane = 0; lane < LANES; lane++) {
                int64_t j = g * LANES + lane;
                j = j < request->count ? j : request->count - 1;
                groups->components[g * groups->dim + d][lane] = request->interests[j * groups->dim + d];
            }
}

static inline __attribute__((always_inline)) float largest(lanes values)
{
    float kept[LANES];
    memcpy(kept, &values, sizeof kept);
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++)
            kept[lane] = kept[lane] > kept[lane + half] ? kept[lane] : kept[lane + half];
    return kept[0];
}

/* For each of ROWS vectors, its largest product with an interest. */
typedef void product_fn(const struct group *groups, const float *const *vectors, float *out);

static inline __attribute__((always_inline)) void products_inline(const struct group *groups,
                                                                  const float *const *vectors,
                                                                  float *out)
{
    for (int r = 0; r < ROWS; r++)
        out[r] = -INFINITY;
    for (int64_t g = 0; g < groups->count; g++) {
        const lanes *components = groups->components + g * groups->dim;
        lanes sums[ROWS] = {{0}};
        for (int64_t d = 0; d < groups->dim; d++)
            for (int r = 0; r < ROWS; r++)
                sums[r] += components[d] * vectors[r][d];
        for (int r = 0; r < ROWS; r++)
            out[r] = fmaxf(out[r], largest(sums[r]));
    }
}

static void products_portable(const struct group *groups, const float *const *vectors, float *out)
{
    products_inline(groups, vectors, out);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void products_avx2(const struct group *groups,
                                                              const float *const *vectors,
                                                              float *out)
{
    products_inline(groups, vectors, out);
}
#endif

static product_fn *product_of(const char *isa)
{
#if defined(__x86_64__)
    if (strcmp(isa, "portable") && __builtin_cpu_supports("fma"))
        return products_avx2;
#endif
    return products_portable;
}

/* Of an exact search, all: vectors (size, dim), and their bytes. The row of each is its position
 * plus 1. */
struct items {
    const float *vectors;
    const uint8_t *codes; /* (size, dim) */
    const float *scales;  /* of each vector: it is about code * scale */
    int64_t size, dim, padded;
    double norm, error; /* the largest of the vectors, and of their rounding errors */
};

/* What an exact search has found: rows that are among the k best so far. */
struct found {
    int64_t *rows;
    float *scores;
    int64_t size;
    struct best best;
    float rounding; /* by so much the scores of two items may be wrong together */
};

/* Score the vectors at these positions that the filter allows; changes the positions. */
static void score_allowed(product_fn *product, const struct group *groups,
                          const struct items *items, const struct filter *filter,
                          int64_t *positions, int64_t size, struct found *found)
{
    struct best *best = &found->best;
    int64_t allowed = 0;
    for (int64_t p = 0; p < size; p++)
        if (is_allowed(filter, positions[p] + 1)) {
            for (int64_t d = 0; d < items->dim; d += LINE / sizeof(float))
                __builtin_prefetch(items->vectors + positions[p] * items->dim + d);
            positions[allowed++] = positions[p];
        }
    for (int64_t start = 0; start < allowed; start += ROWS) {
        const float *vectors[ROWS];
        float scores[ROWS];
        for (int64_t r = 0; r < ROWS; r++)
            vectors[r] = items->vectors +
                         positions[start + r < allowed ? start + r : start] * items->dim;
        product(groups, vectors, scores);
        for (int64_t r = 0; r < ROWS && start + r < allowed; r++) {
            if (best->size == best->k && scores[r] < best->scores[0] - found->rounding)
                continue;
            add_score(best, scores[r]);
            found->rows[found->size] = positions[start + r] + 1;
            found->scores[found->size++] = scores[r];
        }
    }
}

/* Exact search. A vector whose bytes promise enough is multiplied itself, at once, which raises what
 * the next must promise; where the bytes tell little, most vectors are. Returns how many rows may be
 * among the k best, ascending. rows, scores: with room for every item. */
int64_t search_all(const char *isa, struct request *request, const struct items *items,
                   const struct filter *filter, int64_t *rows, float *scores)
{
    int64_t dim = items->dim, padded = items->padded;
    int64_t group_count = (request->count + LANES - 1) / LANES;
    const int8_t *pointers[request->count];
    int8_t codes[request->count * padded];
    int32_t base[request->count], products[CHUNK];
    lanes components[group_count * dim];
    struct queries queries = {padded, 0, pointers, base};
    struct group groups = {components, group_count, dim};
    struct best best = {malloc((request->k + 1) * sizeof(float)), 0, request->k};
    struct found found = {rows, scores, 0, best, 0};
    tile_fn *tile = tile_of(isa);
    product_fn *product = product_of(isa);
    int64_t positions[CHUNK], kept = 0;
    quantize(request, dim, padded, codes);
    for (int64_t j = 0; j < request->count; j++)
        add_query(&queries, codes + j * padded);
    transpose(request, &groups);
    found.rounding = (float)(2 * FLOAT_ERROR * request->norm * items->norm);
    float slack = (float)error_bound(request, items->norm, items->error) + found.rounding;
    for (int64_t start = 0; start < items->size; start += CHUNK) {
        int64_t here = items->size - start < CHUNK ? items->size - start : CHUNK;
        maxima(tile, &queries, items->codes + start * dim, here, items->size - start - here, dim,
               products);
        int64_t promising = 0;
        float least = found.best.size == request->k ? best.scores[0] - slack : -INFINITY;
        for (int64_t t = 0; t < here; t++) { /* without a branch, as it could not be predicted */
            positions[promising] = start + t;
            promising += products[t] * (request->unit * items->scales[start + t]) >= least;
        }
        score_allowed(product, &groups, items, filter, positions, promising, &found);
    }
    float least = found.best.size == request->k ? best.scores[0] - found.rounding : -INFINITY;
    for (int64_t i = 0; i < found.size; i++)
        if (scores[i] >= least)
            rows[kept++] = rows[i];
    free(best.scores);
    return kept;
}
