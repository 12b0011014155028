// y = x W^T + b with 8-bit or 4-bit weights and activations rounded to 8 bits.
//
// Both are cut into blocks of BLOCK numbers along the inner dimension, each with a scale of its own, so that one large
// number spoils its own block only. Inside a block the product is one of integers, and exact (AVX512-VNNI); blocks are
// added in float, in order. A row's result hence depends neither on the other rows nor on the number of threads.
//
// Weights are unsigned (w + OFFSET), since the instruction multiplies unsigned by signed; what the offset adds is known
// from the sum of the block's activations, and the sums start from its negative. Layout: panels of 16 outputs; in a
// panel, blocks; in a block, for each four inputs the 16 outputs' 4 bytes, then 16 float scales. With 4 bits, each byte
// holds a weight of one group of four in its lower and one of the next group in its upper half.
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels.h"
#include "threads.h"
#include "vector.h"

namespace {

constexpr long PANEL = 16;       // outputs computed together: the floats of one register
constexpr long ROWS = 8;         // rows computed together, at most: each weight is loaded once for so many
constexpr long AHEAD = 2048;      // bytes: how far ahead of their use memory is asked for weights
constexpr long LARGEST = 32;      // panels that a thread takes at once: neighbours, as memory likes them read
constexpr long ROW_BLOCK = 96;   // rows whose activations stay in the cache while all weights pass by

template <int BITS> struct Format;
template <> struct Format<8> {
    static constexpr long BLOCK = 128, BYTES = BLOCK * PANEL;
    static constexpr int OFFSET = 128;
};
template <> struct Format<4> {
    static constexpr long BLOCK = 64, BYTES = BLOCK * PANEL / 2;
    static constexpr int OFFSET = 8;
};

// Activations as the products read them, one tile of rows after another; in a tile, blocks; in a block, for each four
// inputs the rows' 4 bytes. `starts` is the first value of a block's sums. Both it and `scales` are (rows, blocks).
struct Activations {
    std::vector<int8_t> numbers;
    std::vector<float> scales;
    std::vector<int32_t> starts;
};

// Rows in equal tiles, rather than full ones and a small rest.
struct Tiles {
    long rows, count;
    explicit Tiles(long rows) : rows(rows), count((rows + ROWS - 1) / ROWS) {}
    long begin(long tile) const { return tile * rows / count; }
};

// One row into its tile: `q` points to its first four bytes, the next ones are `stride` bytes on.
template <int BITS>
void quantise_row(const float* x, long inputs, long blocks, int8_t* q, long stride, float* scales, int32_t* starts) {
    constexpr long BLOCK = Format<BITS>::BLOCK;
    for (long b = 0; b < blocks; b++) {
        const float* from = x + b * BLOCK;
        const long count = std::min(BLOCK, inputs - b * BLOCK);
        __m512 largest = _mm512_setzero_ps();
        for (long i = 0; i < count; i += 16)
            largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_maskz_loadu_ps(first_lanes(count - i), from + i)));
        const float most = _mm512_reduce_max_ps(largest);
        const __m512 inverse = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
        __m512i sum = _mm512_setzero_si512();
        for (long i = 0; i < BLOCK; i += 16, q += 4 * stride) {
            const __m512 v = _mm512_maskz_loadu_ps(i < count ? first_lanes(count - i) : 0, from + i);
            const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
            sum = _mm512_add_epi32(sum, rounded);
            const __m128i bytes = _mm512_cvtsepi32_epi8(rounded);
            *(int32_t*)q = _mm_extract_epi32(bytes, 0);
            *(int32_t*)(q + stride) = _mm_extract_epi32(bytes, 1);
            *(int32_t*)(q + 2 * stride) = _mm_extract_epi32(bytes, 2);
            *(int32_t*)(q + 3 * stride) = _mm_extract_epi32(bytes, 3);
        }
        scales[b] = most / 127.0f;
        starts[b] = -Format<BITS>::OFFSET * _mm512_reduce_add_epi32(sum);
    }
}

// What a tile reads and writes.
struct Operands {
    const int8_t* x;
    const float* scales;
    const int32_t* starts;
    long blocks;
    const uint8_t* panel;
    __m512 bias;
    __mmask16 lanes;
    float* y;
    long outputs;
    bool add;  // to what y holds
};

// M rows by one panel. Integer sums may be split as it pleases; float sums may not, or rows would depend on M.
template <int BITS, int M> void tile(const Operands& o) {
    constexpr long BLOCK = Format<BITS>::BLOCK, BYTES = Format<BITS>::BYTES;
    constexpr int WAYS = M == 1 ? 4 : M <= 3 ? 2 : 1;  // independent sums, to hide the instruction's latency
    const int8_t* x = o.x;
    const uint8_t* w = o.panel;
    __m512 sum[M];
    for (int m = 0; m < M; m++) sum[m] = o.bias;
    for (long b = 0; b < o.blocks; b++) {
        __m512i part[M][WAYS];
        for (int m = 0; m < M; m++) {
            part[m][0] = _mm512_set1_epi32(o.starts[m * o.blocks + b]);
            for (int way = 1; way < WAYS; way++) part[m][way] = _mm512_setzero_si512();
        }
        auto add = [&](__m512i weights, int way) {
#pragma GCC unroll 8
            for (int m = 0; m < M; m++, x += 4)
                part[m][way] = _mm512_dpbusd_epi32(part[m][way], weights, _mm512_set1_epi32(*(const int32_t*)x));
        };
        for (long at = 0; at < BYTES; at += 64 * WAYS)
#pragma GCC unroll 4
            for (int way = 0; way < WAYS; way++) {
                // One row waits for memory only, and more of it is under way to the second cache than to the first.
                _mm_prefetch((const char*)(w + at + 64 * way + AHEAD), M == 1 ? _MM_HINT_T1 : _MM_HINT_T0);
                const __m512i weights = _mm512_loadu_si512(w + at + 64 * way);
                if constexpr (BITS == 8) {
                    add(weights, way);
                } else {
                    const __m512i low = _mm512_set1_epi8(15);
                    add(_mm512_and_si512(weights, low), way);
                    add(_mm512_and_si512(_mm512_srli_epi16(weights, 4), low), way);
                }
            }
        const __m512 weight_scales = _mm512_loadu_ps(w + BYTES);
        for (int m = 0; m < M; m++) {
            for (int way = 1; way < WAYS; way++) part[m][0] = _mm512_add_epi32(part[m][0], part[m][way]);
            const __m512 scale = _mm512_mul_ps(weight_scales, _mm512_set1_ps(o.scales[m * o.blocks + b]));
            sum[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[m][0]), scale, sum[m]);
        }
        w += BYTES + PANEL * sizeof(float);
    }
    for (int m = 0; m < M; m++) {
        float* y = o.y + m * o.outputs;
        if (o.add) sum[m] = _mm512_add_ps(_mm512_maskz_loadu_ps(o.lanes, y), sum[m]);
        _mm512_mask_storeu_ps(y, o.lanes, sum[m]);
    }
}

template <int BITS, size_t... M> auto tile_of(long rows, std::index_sequence<M...>) {
    static constexpr void (*all[])(const Operands&) = {tile<BITS, M + 1>...};
    return all[rows - 1];
}

template <int BITS>
void linear(const Product& product, const float* x, long rows, float* y, bool add) {
    constexpr long BLOCK = Format<BITS>::BLOCK;
    const long inputs = product.inputs, outputs = product.outputs;
    const long blocks = (inputs + BLOCK - 1) / BLOCK, width = blocks * BLOCK, panels = (outputs + PANEL - 1) / PANEL;
    const long panel_bytes = blocks * (Format<BITS>::BYTES + PANEL * (long)sizeof(float));
    static thread_local Activations kept;  // grows to the largest pass and stays
    Activations& a = kept;
    if ((long)a.scales.size() < rows * blocks || (long)a.numbers.size() < rows * width) {
        a.numbers.resize(rows * width);
        a.scales.resize(rows * blocks);
        a.starts.resize(rows * blocks);
    }
    const Tiles tiles(rows);
    const auto quantise_tile = [&](long t) {
        for (long first = tiles.begin(t), end = tiles.begin(t + 1), row = first; row < end; row++)
            quantise_row<BITS>(x + row * inputs, inputs, blocks, &a.numbers[first * width + 4 * (row - first)],
                               4 * (end - first), &a.scales[row * blocks], &a.starts[row * blocks]);
    };
    share(tiles.count, quantise_tile);
    const long group = ROW_BLOCK / ROWS, groups = (tiles.count + group - 1) / group;
    const long even = 2 * threads(), wanted = (panels + LARGEST - 1) / LARGEST;  // as many for each thread
    const long pieces = std::min(panels, (wanted + even - 1) / even * even);
    share(groups * pieces, [&](long i) {
        const long from = i / pieces * group, to = std::min(from + group, tiles.count);
        for (long p = i % pieces * panels / pieces; p < (i % pieces + 1) * panels / pieces; p++) {
            const __mmask16 lanes = first_lanes(outputs - p * PANEL);
            const __m512 bias =
                product.bias ? _mm512_maskz_loadu_ps(lanes, product.bias + p * PANEL) : _mm512_setzero_ps();
            for (long t = from; t < to; t++) {
                const long row = tiles.begin(t), count = tiles.begin(t + 1) - row;
                tile_of<BITS>(count, std::make_index_sequence<ROWS>())(
                    {&a.numbers[row * width], &a.scales[row * blocks], &a.starts[row * blocks], blocks,
                     product.weights + p * panel_bytes, bias, lanes, y + row * outputs + p * PANEL, outputs, add});
            }
        }
    });
}

}  // namespace

extern "C" void windlass_linear(const Product* product, const float* x, long rows, float* y, bool add) {
    (product->bits == 8 ? linear<8> : linear<4>)(*product, x, rows, y, add);
}
