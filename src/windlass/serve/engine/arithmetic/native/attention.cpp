// Attention of many texts at once, each to its own keys and values, which lie in buffers of their own lengths.
//
// Softmax is computed while the keys pass by, a block at a time (Milakov and Gimelshein, arXiv 1805.02867; Dao et al.,
// arXiv 2205.14135). Blocks begin at multiples of KEYS, and a key that a query does not see changes none of its bits:
// so what a query finds depends neither on the others in the pass nor on how the text was cut into passes.
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels.h"
#include "threads.h"
#include "vector.h"

namespace {

constexpr long KEYS = 64;           // in a block: four registers of scores
constexpr long CHUNK = 64;          // dimensions of the values in registers at once
constexpr long ROWS = 6;            // queries in registers at once: with four registers each, 24 of 32
constexpr long QUERIES = 48;        // of one piece of work
constexpr long TOGETHER = 4;        // pieces that a thread takes at once: it sends for the next ones' keys in time
constexpr long PAGE = 1024;         // floats
constexpr long ANNOUNCED = 32 * PAGE;
constexpr float LOWEST = -3.0e38f;

// One text. Numbers of floats between neighbours are the `_layer` and `_head` ones; positions lie side by side.
struct Part {
    float *keys, *values;
    int64_t layer_stride, head_stride;
    int64_t start;   // positions that the buffers hold before this pass
    int64_t count;   // new ones
    int64_t offset;  // of the first new one in the pass
};

// Dimension i is turned with i + turned/2, by the cosine and sine in a row of (rows, turned).
struct Rotation {
    const float *cos, *sin;
    long turned;
    bool by_place;
    void apply(const float* x, const Part& part, long new_one, long dim, float scale, float* y) const {
        const long row = new_one + (by_place ? part.start : part.offset);
        const float *c = cos + row * turned, *s = sin + row * turned;
        const long half = turned / 2;
        for (long i = 0; i < half; i++) y[i] = (x[i] * c[i] - x[i + half] * s[i]) * scale;
        for (long i = half; i < turned; i++) y[i] = (x[i] * c[i] + x[i - half] * s[i]) * scale;
        for (long i = turned; i < dim; i++) y[i] = x[i] * scale;
    }
};

struct Rows {  // of a tensor (heads, tokens, head_dim)
    const float* data;
    long head, token;
    const float* at(long h, long t) const { return data + h * head + t * token; }
};

// Has memory bring numbers that will be wanted soon (to the second cache, since they are many): texts lie scattered, and
// the processor does not guess well.
inline void send_for(const float* numbers, long count) {
    for (long i = 0; i < count; i += 16) _mm_prefetch((const char*)(numbers + i), _MM_HINT_T1);
}

// The sums of sixteen registers' numbers, in one register: each step adds halves of two, so that one is left of them.
inline __m512 sums(__m512 (&r)[16]) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)  // lanes of r[i], r[i + 8] by turns, pairs of neighbours added
        r[i] = _mm512_add_ps(_mm512_unpacklo_ps(r[i], r[i + 8]), _mm512_unpackhi_ps(r[i], r[i + 8]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        r[i] = _mm512_add_ps(_mm512_unpacklo_ps(r[i], r[i + 4]), _mm512_unpackhi_ps(r[i], r[i + 4]));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)  // now each quarter holds four registers' sums of that quarter
        r[i] = _mm512_add_ps(_mm512_shuffle_f32x4(r[i], r[i + 2], 0x88), _mm512_shuffle_f32x4(r[i], r[i + 2], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(r[0], r[1], 0x88), _mm512_shuffle_f32x4(r[0], r[1], 0xdd));
}
// Where `sums` leaves each register's.
const __m512i ORDER = _mm512_setr_epi32(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15);

// Products of one query with sixteen keys (FULL), or with fewer, and then the last one fills the rest.
template <bool FULL> __m512 score16(const float* query, const float* keys, long count, long dim) {
    __m512 r[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_setzero_ps();
    for (long d = 0; d < dim; d += 16) {
        const __mmask16 lanes = first_lanes(dim - d);
        const __m512 q = _mm512_maskz_loadu_ps(lanes, query + d);
#pragma GCC unroll 16
        for (long i = 0; i < 16; i++) {
            const float* key = keys + (FULL ? i : std::min(i, count - 1)) * dim + d;
            r[i] = _mm512_fmadd_ps(q, _mm512_maskz_loadu_ps(lanes, key), r[i]);
        }
    }
    return _mm512_permutexvar_ps(ORDER, sums(r));
}

// Products of each query with `count` keys, up to KEYS. `next`: keys that are wanted after these.
void score(const float* queries, long rows, const float* keys, long count, long dim, float* scores, const float* next) {
    for (long j = 0; j < count; j += 16) {
        send_for(next + j * dim, 16 * dim);
        for (long row = 0; row < rows; row++) {
            const float *query = queries + row * dim, *from = keys + j * dim;
            const __m512 found =
                count - j < 16 ? score16<false>(query, from, count - j, dim) : score16<true>(query, from, 16, dim);
            _mm512_storeu_ps(scores + row * KEYS + j, found);
        }
    }
}

// What `gather` reads and writes: R rows, CHUNK dimensions from d on.
struct Gathered {
    const float *weights, *fade, *values;
    long count, dim, d;
    float* out;
    const float* next;  // values that are wanted after these
};

// out = fade * out + weights x values.
template <int R> void gather(const Gathered& g) {
    __mmask16 lanes[4];
    __m512 sum[R][4];
    for (int v = 0; v < 4; v++) lanes[v] = first_lanes(std::max(0L, g.dim - g.d - 16 * v));
    for (int r = 0; r < R; r++)
        for (int v = 0; v < 4; v++)
            sum[r][v] = _mm512_mul_ps(_mm512_set1_ps(g.fade[r]),
                                      _mm512_maskz_loadu_ps(lanes[v], g.out + r * g.dim + g.d + 16 * v));
    for (long j = 0; j < g.count; j++) {
        send_for(g.next + j * g.dim + g.d, CHUNK);
        __m512 value[4];
        for (int v = 0; v < 4; v++)
            value[v] = _mm512_maskz_loadu_ps(lanes[v], g.values + j * g.dim + g.d + 16 * v);
#pragma GCC unroll 6
        for (int r = 0; r < R; r++)
            for (int v = 0; v < 4; v++)
                sum[r][v] = _mm512_fmadd_ps(_mm512_set1_ps(g.weights[r * KEYS + j]), value[v], sum[r][v]);
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < 4; v++)
            _mm512_mask_storeu_ps(g.out + r * g.dim + g.d + 16 * v, lanes[v], sum[r][v]);
}

template <size_t... R> auto gather_of(long rows, std::index_sequence<R...>) {
    static constexpr void (*all[])(const Gathered&) = {gather<R + 1>...};
    return all[rows - 1];
}

// One row's scores of a block, of which it sees `from` to before `to`, become weights; returns the factor that what it
// has found so far fades by.
float weigh(float* scores, long from, long to, float& largest, float& total) {
    __m512 s[4], top = _mm512_set1_ps(LOWEST), sum = _mm512_setzero_ps();
    __mmask16 seen[4];
    for (int v = 0; v < 4; v++) {
        const long first = std::max(0L, from - 16 * v), last = std::max(0L, to - 16 * v);
        seen[v] = first_lanes(last) & ~first_lanes(first);
        s[v] = _mm512_loadu_ps(scores + 16 * v);
        top = _mm512_mask_max_ps(top, seen[v], top, s[v]);
    }
    const float before = largest;
    largest = std::max(largest, _mm512_reduce_max_ps(top));
    for (int v = 0; v < 4; v++) {
        s[v] = _mm512_maskz_mov_ps(seen[v], exp16(_mm512_sub_ps(s[v], _mm512_set1_ps(largest))));
        sum = _mm512_add_ps(sum, s[v]);
        _mm512_storeu_ps(scores + 16 * v, s[v]);
    }
    const float fade = before == largest ? 1.0f : _mm512_cvtss_f32(exp16(_mm512_set1_ps(before - largest)));
    total = total * fade + _mm512_reduce_add_ps(sum);
    return fade;
}

struct Scratch {
    std::vector<float> queries, scores, found, largest, total, fade;
};

// The queries `from` to before `to` of one part, of all heads that share key/value head `kv`.
struct Work {
    const Part* part;
    long kv, from, to;
};

// One layer of a pass.
struct Layer {
    const Sight& sight;
    Rows q, new_keys, new_values;
    long number;
    Rotation rotation;
    float* y;

    long at(const Work& w) const { return number * w.part->layer_stride + w.kv * w.part->head_stride; }

    // The first block that any of the queries sees.
    long first(const Work& w) const {
        return (sight.window ? std::max(0L, w.part->start + w.from + 1 - sight.window) : 0) / KEYS * KEYS;
    }

    // Has the addresses looked up of what a piece of work begins with: a page's takes longer to find than to read.
    void announce(const Work& w) const {
        const long from = at(w) + first(w) * sight.dim, count = (w.part->start + w.to - first(w)) * sight.dim;
        for (long i = 0; i < std::min(count, ANNOUNCED); i += PAGE) {
            send_for(w.part->keys + from + i, 1);
            send_for(w.part->values + from + i, 1);
        }
    }

    // Puts new keys and values behind those in the buffers.
    void store(const Part& part, long kv) const {
        const long dim = sight.dim, at = this->at({&part, kv, 0, 0}) + part.start * dim;
        for (long t = 0; t < part.count; t++) {
            rotation.apply(new_keys.at(kv, part.offset + t), part, t, dim, 1.0f, part.keys + at + t * dim);
            std::copy_n(new_values.at(kv, part.offset + t), dim, part.values + at + t * dim);
        }
    }

    // `next`: what this thread will look at after it.
    void look(const Work& w, const Work& next, Scratch& s) const {
        const Part& part = *w.part;
        const long dim = sight.dim, window = sight.window, group = sight.heads / sight.kv_heads;
        const long rows = (w.to - w.from) * group;
        s.queries.resize(rows * dim);
        s.scores.resize(rows * KEYS);
        s.found.assign(rows * dim, 0.0f);
        s.largest.assign(rows, LOWEST);
        s.total.assign(rows, 0.0f);
        s.fade.resize(rows);
        for (long r = 0; r < rows; r++) {
            const long new_one = w.from + r / group;
            const float* query = q.at(w.kv * group + r % group, part.offset + new_one);
            rotation.apply(query, part, new_one, dim, sight.scale, &s.queries[r * dim]);
        }
        const float *keys = part.keys + at(w), *values = part.values + at(w);
        const float *next_keys = next.part->keys + at(next), *next_values = next.part->values + at(next);
        const long last = part.start + w.to;  // the first position that none of them sees
        announce(next);
        const auto sizes = std::make_index_sequence<ROWS>();
        for (long block = first(w); block < last; block += KEYS) {
            const long count = std::min(KEYS, last - block);
            const bool more = block + KEYS < last;
            const long after = (more ? block + KEYS : first(next)) * dim;
            score(s.queries.data(), rows, keys + block * dim, count, dim, s.scores.data(),
                  (more ? keys : next_keys) + after);
            for (long r = 0; r < rows; r++) {
                const long end = part.start + w.from + r / group + 1;  // a query sees itself
                const long begin = window ? std::max(0L, end - window) : 0;
                const long a = std::clamp(begin - block, 0L, KEYS), b = std::clamp(end - block, 0L, KEYS);
                s.fade[r] = weigh(&s.scores[r * KEYS], std::min(a, b), b, s.largest[r], s.total[r]);
            }
            for (long d = 0; d < dim; d += CHUNK)
                for (long r = 0; r < rows; r += ROWS)
                    gather_of(std::min(ROWS, rows - r), sizes)({&s.scores[r * KEYS], &s.fade[r], values + block * dim,
                                                                count, dim, d, &s.found[r * dim],
                                                                (more ? values : next_values) + after});
        }
        for (long r = 0; r < rows; r++) {
            float* out = y + ((part.offset + w.from + r / group) * sight.heads + w.kv * group + r % group) * dim;
            const float scaled = 1.0f / s.total[r];
            for (long d = 0; d < dim; d++) out[d] = s.found[r * dim + d] * scaled;
        }
    }
};

}  // namespace

extern "C" void windlass_attend(const Sight* sight, long layer, const float* q, long q_head, long q_token,
                                const float* k, long k_head, long k_token, const float* v, long v_head, long v_token,
                                float* y) {
    const Part* parts = (const Part*)sight->parts;
    const long kv_heads = sight->kv_heads, most = std::max(1L, QUERIES / (sight->heads / kv_heads));
    const Layer here{*sight,
                     {q, q_head, q_token},
                     {k, k_head, k_token},
                     {v, v_head, v_token},
                     layer,
                     {sight->cos, sight->sin, sight->turned, sight->by_place != 0},
                     y};
    static thread_local std::vector<Work> kept;
    std::vector<Work>& work = kept;
    work.clear();
    for (const Part* part = parts; part < parts + sight->count; part++)
        for (long kv = 0; kv < kv_heads; kv++)
            for (long from = 0; from < part->count; from += most)
                work.push_back({part, kv, from, std::min<long>(from + most, part->count)});
    // Where one looks for all of a part's queries, it can store their keys as well.
    const long count = (long)work.size();
    const bool one_each = count == sight->count * kv_heads;
    if (!one_each)
        share(sight->count * kv_heads, [&](long i) { here.store(parts[i / kv_heads], i % kv_heads); });
    const long pieces = std::max((count + TOGETHER - 1) / TOGETHER, std::min(count, 2 * threads()));
    share(pieces, [&](long i) {
        static thread_local Scratch scratch;
        const long end = (i + 1) * count / pieces;
        for (long w = i * count / pieces; w < end; w++) {
            if (one_each) here.store(*work[w].part, work[w].kv);
            here.look(work[w], work[std::min(w + 1, end - 1)], scratch);
        }
    });
}
