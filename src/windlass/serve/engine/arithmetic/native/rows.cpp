// The small steps between matrix products, each in one pass over its rows rather than one pass for each operation.
#include <algorithm>

#include "kernels.h"
#include "threads.h"
#include "vector.h"

namespace {

// Calls one(row) for all rows, in pieces large enough to be worth sharing.
template <class One> void each_row(long rows, long width, const One& one) {
    const long piece = std::max(1L, (1 << 13) / std::max(1L, width));
    share((rows + piece - 1) / piece, [&](long i) {
        for (long row = i * piece; row < std::min(rows, (i + 1) * piece); row++) one(row);
    });
}

}  // namespace

extern "C" void windlass_rms_norm(const float* x, long rows, long width, long stride, const float* weight, float eps,
                                  float* y) {
    each_row(rows, width, [=](long row) {
        const float* from = x + row * stride;
        __m512 sum = _mm512_setzero_ps();
        for (long i = 0; i < width; i += 16) {
            const __m512 v = _mm512_maskz_loadu_ps(first_lanes(width - i), from + i);
            sum = _mm512_fmadd_ps(v, v, sum);
        }
        const float mean = _mm512_reduce_add_ps(sum) / (float)width;
        const __m512 scale = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_sqrt_ps(_mm512_set1_ps(mean + eps)));
        for (long i = 0; i < width; i += 16) {
            const __mmask16 lanes = first_lanes(width - i);
            const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, from + i), scale);
            const __m512 w = _mm512_maskz_loadu_ps(lanes, weight + i);
            _mm512_mask_storeu_ps(y + row * width + i, lanes, _mm512_mul_ps(v, w));
        }
    });
}

extern "C" void windlass_silu_mul(const float* gate, const float* up, long rows, long width, long stride, float* y) {
    each_row(rows, width, [=](long row) {
        for (long i = 0; i < width; i += 16) {
            const __mmask16 lanes = first_lanes(width - i);
            const __m512 g = _mm512_maskz_loadu_ps(lanes, gate + row * stride + i);
            const __m512 u = _mm512_maskz_loadu_ps(lanes, up + row * stride + i);
            const __m512 one = _mm512_set1_ps(1.0f);
            const __m512 whole = _mm512_add_ps(one, exp16(_mm512_sub_ps(_mm512_setzero_ps(), g)));
            _mm512_mask_storeu_ps(y + row * width + i, lanes, _mm512_mul_ps(_mm512_div_ps(g, whole), u));
        }
    });
}
