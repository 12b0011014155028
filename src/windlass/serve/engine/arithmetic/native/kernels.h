// What the kernels offer each other and, by the same names, Python. The structures are those of `__init__.py`.
#pragma once
#include <cstdint>

// y = x W^T + b; linear.cpp says how the weights lie.
struct Product {
    const uint8_t* weights;
    const float* bias;  // or null
    int64_t inputs, outputs, bits;
};

// What the positions of a pass look at, the same for all layers of one kind.
struct Sight {
    const int64_t* parts;  // see attention.cpp
    int64_t count;         // of parts
    const float *cos, *sin;
    int64_t turned;    // dimensions of a head; 0: none
    int64_t by_place;  // whether the rows of `cos` and `sin` are places in a text, rather than tokens of the pass
    int64_t heads, kv_heads, dim;
    int64_t window;  // 0: a query sees everything up to itself
    float scale;
};

extern "C" {
// x (rows, inputs) -> y (rows, outputs); with `add`, the product is added to what y holds.
void windlass_linear(const Product* product, const float* x, long rows, float* y, bool add);

// Turns queries and keys, stores the new keys and values behind those in the buffers, then looks; y is (tokens, heads,
// head_dim).
void windlass_attend(const Sight* sight, long layer, const float* q, long q_head, long q_token, const float* k,
                     long k_head, long k_token, const float* v, long v_head, long v_token, float* y);

// y = x / sqrt(mean(x^2) + eps) * weight, of rows that lie `stride` numbers apart; y is (rows, width), and may be x.
void windlass_rms_norm(const float* x, long rows, long width, long stride, const float* weight, float eps, float* y);

// y = silu(gate) * up, of rows that lie `stride` numbers apart; y is (rows, width).
void windlass_silu_mul(const float* gate, const float* up, long rows, long width, long stride, float* y);

// The largest number of each row, and the first place where it stands; NaN where the row holds one.
void windlass_largest(const float* x, long rows, long width, long stride, float* most, int64_t* place);
}
