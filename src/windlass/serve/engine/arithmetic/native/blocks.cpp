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

struct Decoder {
    const float* embedding;
    float embedding_scale;
    const Block* blocks;
    int64_t count, hidden;
    const float* norm;
    float eps;
};

// Norms a token's heads in place.
void norm_heads(float* x, long rows, long stride, long heads, long dim, const float* weight, float eps) {
    if (weight)
        for (long row = 0; row < rows; row++)
            windlass_rms_norm(x + row * stride, heads, dim, dim, weight, eps, x + row * stride);
}

}  // namespace

// y (rows, hidden): the hidden vectors of `tokens`. `sights`: of layers that see everything, and of local ones. The
// others are room to work in: x as y, `wide` for the widest product of `rows`, `narrow` for anything else.
extern "C" void windlass_hidden(const Decoder* decoder, const Sight* sights, const int64_t* tokens, long rows, float* x,
                                float* narrow, float* wide, float* y) {
    const auto [embedding, scale, blocks, count, hidden, norm, eps] = *decoder;
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < hidden; i++) x[row * hidden + i] = embedding[tokens[row] * hidden + i] * scale;
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
