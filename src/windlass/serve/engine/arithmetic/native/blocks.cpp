// A pass through all blocks of a plain decoder in one call: what the modules would do one by one, by the same kernels.
//
// A decoding step of a small model is a hundred kernels of some ten microseconds each; called from Python, each would
// wait about as long for its turn.
#include <algorithm>

#include "kernels.h"

namespace {

struct Block {
    const float* attention_norm;
    Product joined;                      // query, key and value
    const float *query_norm, *key_norm;  // of each head, or null
    Product output;
    const float* mlp_norm;
    Product gated;  // gate and up
    Product down;
    int64_t local;  // which of the two sights
};

// Norms a token's heads in place.
void norm_heads(float* x, long rows, long stride, long heads, long dim, const float* weight, float eps) {
    if (weight)
        for (long row = 0; row < rows; row++)
            windlass_rms_norm(x + row * stride, heads, dim, dim, weight, eps, x + row * stride);
}

}  // namespace

// x (rows, hidden), the residual stream, becomes that behind the last block; y is its norm. `sights`: of layers that
// see everything, and of local ones. `wide` has room for `rows` of the widest product, `narrow` for those of anything
// else.
extern "C" void windlass_blocks(const Block* blocks, long count, const Sight* sights, const float* norm, float eps,
                                float* x, long rows, long hidden, float* narrow, float* wide, float* y) {
    for (long layer = 0; layer < count; layer++) {
        const Block& block = blocks[layer];
        const Sight& sight = sights[block.local];
        const long dim = sight.dim, joined = block.joined.outputs, ffn = block.down.inputs;
        float *key = wide + sight.heads * dim, *value = key + sight.kv_heads * dim;

        windlass_rms_norm(x, rows, hidden, hidden, block.attention_norm, eps, narrow);
        windlass_linear(&block.joined, narrow, rows, wide, false);
        norm_heads(wide, rows, joined, sight.heads, dim, block.query_norm, eps);
        norm_heads(key, rows, joined, sight.kv_heads, dim, block.key_norm, eps);
        windlass_attend(&sight, layer, wide, dim, joined, key, dim, joined, value, dim, joined, narrow);
        windlass_linear(&block.output, narrow, rows, x, true);

        windlass_rms_norm(x, rows, hidden, hidden, block.mlp_norm, eps, narrow);
        windlass_linear(&block.gated, narrow, rows, wide, false);
        windlass_silu_mul(wide, wide + ffn, rows, ffn, 2 * ffn, narrow);
        windlass_linear(&block.down, narrow, rows, x, true);
    }
    windlass_rms_norm(x, rows, hidden, hidden, norm, eps, y);
}
