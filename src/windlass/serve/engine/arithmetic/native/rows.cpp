// The small steps between matrix products, each in one pass over its rows rather than one pass for each operation.
#include <algorithm>
#include <limits>

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

extern "C" void windlass_largest(const float* x, long rows, long width, long stride, float* most, int64_t* place) {
    each_row(rows, width, [=](long row) {
        const float* from = x + row * stride;
        const auto at = [=](long i) {
            const __m512 nothing = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
            return _mm512_mask_loadu_ps(nothing, first_lanes(width - i), from + i);
        };
        __m512 largest = at(0);
        __mmask16 strange = 0;  // a comparison forgets what is not a number
        for (long i = 0; i < width; i += 16) {
            const __m512 v = at(i);
            strange |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
            largest = _mm512_max_ps(largest, v);
        }
        most[row] = strange ? std::numeric_limits<float>::quiet_NaN() : _mm512_reduce_max_ps(largest);
        place[row] = 0;
        for (long i = 0; i < width && !strange; i += 16)
            if (const __mmask16 here = _mm512_cmp_ps_mask(at(i), _mm512_set1_ps(most[row]), _CMP_EQ_OQ)) {
                place[row] = i + __builtin_ctz(here);
                break;
            }
    });
}
