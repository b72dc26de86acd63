// What the fused operators share: bf16 and fp32 in registers of 512 bits, packed operands, scratch memory, the norm.
//
// Products are oneDNN's micro-kernels (brgemm): C[M, N] (+)= A[M, K] B[K, N], A and B in bf16, C in fp32. Their second
// operands are packed as the instruction wants them, two rows together: B[k, n] is at [k / 2][n][k % 2]. Those of
// weights are cut in panels of PANEL columns, each of which lies together.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <immintrin.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <tuple>

namespace fused {

using at::BFloat16;
using at::Tensor;
using at::native::cpublas::brgemm;
using at::native::cpublas::brgemm_release;

constexpr int64_t LANES = 16;      // fp32 values in a register
constexpr int64_t PANEL = 32;      // columns of a packed operand that lie together; widths are multiples of it
constexpr int64_t MOST_ROWS = 96;  // rows computed at once
constexpr float LOG2_E = 1.44269504f;

// -- registers --------------------------------------------------------------------------------------------------------

inline __m512 load(const float* p) { return _mm512_loadu_ps(p); }
inline __m256i load_bits(const BFloat16* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline __m512 to_fp32(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline __m512 load(const BFloat16* p) { return to_fp32(load_bits(p)); }

// bf16 in the low halves, rounded to nearest
inline __m256i to_bf16(__m512 x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }
inline void store(BFloat16* p, __m256i bits) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits); }
inline void store(BFloat16* p, __m512 x) { store(p, to_bf16(x)); }

inline __m512 rounded(__m512 x) { return to_fp32(to_bf16(x)); }

// Two rows as pairs: even[0] odd[0] even[1] odd[1] ...
inline void store_pair(BFloat16* p, __m256i even, __m256i odd) {
  const __m512i pairs = _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
  _mm512_storeu_si512(p, pairs);
}

// [16, 16] of 32 bits, transposed. Rows lie `from_width` and `to_width` values of 16 bits apart.
inline void turn_block(const void* from, int64_t from_width, void* to, int64_t to_width) {
  __m512i a[16], b[16];
  for (int r = 0; r < 16; r++) a[r] = _mm512_loadu_si512(static_cast<const int16_t*>(from) + r * from_width);
  for (int r = 0; r < 16; r += 2) {
    b[r] = _mm512_unpacklo_epi32(a[r], a[r + 1]);
    b[r + 1] = _mm512_unpackhi_epi32(a[r], a[r + 1]);
  }
  for (int r = 0; r < 16; r += 4) {
    a[r] = _mm512_unpacklo_epi64(b[r], b[r + 2]);
    a[r + 1] = _mm512_unpackhi_epi64(b[r], b[r + 2]);
    a[r + 2] = _mm512_unpacklo_epi64(b[r + 1], b[r + 3]);
    a[r + 3] = _mm512_unpackhi_epi64(b[r + 1], b[r + 3]);
  }
  // a[4 q + c]: in its four 128-bit lanes l, column 4 l + c of rows 4 q to 4 q + 3
  for (int c = 0; c < 4; c++) {
    const __m512i low01 = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88);
    const __m512i high01 = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd);
    const __m512i low23 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88);
    const __m512i high23 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
    b[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    b[8 + c] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    b[4 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    b[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
  for (int r = 0; r < 16; r++) _mm512_storeu_si512(static_cast<int16_t*>(to) + r * to_width, b[r]);
}

// Rows `rows` (an even number) of `width` values, packed two together: from[k, n] to [k / 2][n][k % 2].
inline void pair_rows(const BFloat16* from, int64_t rows, int64_t width, BFloat16* to) {
  for (int64_t k = 0; k < rows; k += 2)
    for (int64_t n = 0; n < width; n += LANES)
      store_pair(to + k * width + 2 * n, load_bits(from + k * width + n), load_bits(from + (k + 1) * width + n));
}

// [PANEL, width] transposed and packed for a product: from[n, k] to [k / 2][n][k % 2]; width is a multiple of 32.
inline void turn(const BFloat16* from, int64_t width, BFloat16* to) {
  for (int64_t n = 0; n < PANEL; n += 16)
    for (int64_t k = 0; k < width; k += 32)
      turn_block(from + n * width + k, width, to + k * PANEL + 2 * n, 2 * PANEL);
}

// 2^t, relative error below 8e-5, where bf16 rounds by 4e-3: 2^floor(t) times a cubic in t - floor(t).
inline __m512 power_of_two(__m512 t) {
  const __m512 f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(0.0780243480f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.226067404f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.695833455f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.999925223f));
  return _mm512_scalef_ps(p, t);
}

// -- memory -----------------------------------------------------------------------------------------------------------

template <typename T>
struct Scratch {
  explicit Scratch(int64_t count) : data(static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64))) {
    TORCH_CHECK(data != nullptr, "out of memory");
  }
  ~Scratch() { std::free(data); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() const { return data; }
  T* data;
};

inline const BFloat16* read(const Tensor& t) { return t.const_data_ptr<BFloat16>(); }
inline BFloat16* write(const Tensor& t) { return t.mutable_data_ptr<BFloat16>(); }

inline Tensor empty_like_of(const Tensor& x, at::IntArrayRef sizes, at::ScalarType dtype = at::kBFloat16) {
  return at::empty(sizes, x.options().dtype(dtype));
}

inline void check(const Tensor& t, at::IntArrayRef sizes, const char* name) {
  TORCH_CHECK(t.scalar_type() == at::kBFloat16 && t.is_contiguous() && t.sizes() == sizes, name, " is ",
              t.scalar_type(), " ", t.sizes(), t.is_contiguous() ? "" : " and not contiguous",
              ", but must be contiguous bfloat16 ", sizes);
}

// Rows per part: a thread's share in as few equal parts of at most MOST_ROWS rows as possible; 1 if there are no rows.
inline int64_t rows_at_once(int64_t rows) {
  if (rows == 0) return 1;
  const int64_t threads = at::get_num_threads();
  const int64_t share = (rows + threads - 1) / threads;
  const int64_t parts = (share + MOST_ROWS - 1) / MOST_ROWS;
  return (share + parts - 1) / parts;
}

// -- the post-norm ----------------------------------------------------------------------------------------------------

// y = u / sqrt(mean(u^2) + eps) of `rows` rows, u = sum + x: sum fp32 [rows, D], overwritten by u; x, y bf16 [rows, D].
// Also writes the factor of each row, unless `factors` is null.
inline void residual_norm(float* sum, const BFloat16* x, BFloat16* y, int64_t rows, int64_t D, double eps,
                          float* factors) {
  for (int64_t m = 0; m < rows; m++) {
    float* row = sum + m * D;
    __m512 squares = _mm512_setzero_ps();
    for (int64_t n = 0; n < D; n += LANES) {
      const __m512 u = _mm512_add_ps(load(row + n), load(x + m * D + n));
      squares = _mm512_fmadd_ps(u, u, squares);
      _mm512_storeu_ps(row + n, u);
    }
    const float factor = 1.f / std::sqrt(_mm512_reduce_add_ps(squares) / D + static_cast<float>(eps));
    for (int64_t n = 0; n < D; n += LANES)
      store(y + m * D + n, _mm512_mul_ps(load(row + n), _mm512_set1_ps(factor)));
    if (factors != nullptr) factors[m] = factor;
  }
}

// du = factor * (dy - y * mean(dy * y)) of `rows` rows [rows, D].
inline void norm_backward(const BFloat16* dy, const BFloat16* y, const float* factors, BFloat16* du, int64_t rows,
                          int64_t D) {
  for (int64_t m = 0; m < rows; m++) {
    __m512 dots = _mm512_setzero_ps();
    for (int64_t n = m * D; n < (m + 1) * D; n += LANES) dots = _mm512_fmadd_ps(load(dy + n), load(y + n), dots);
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(dots) / D), factor = _mm512_set1_ps(factors[m]);
    for (int64_t n = m * D; n < (m + 1) * D; n += LANES)
      store(du + n, _mm512_mul_ps(factor, _mm512_fnmadd_ps(load(y + n), mean, load(dy + n))));
  }
}

// dx = d_sum + a w of M rows: a [M, K], w packed [D / PANEL, K / 2, PANEL, 2]; scratch fp32 [M, PANEL].
inline void add_product(const BFloat16* a, const BFloat16* w, const BFloat16* d_sum, BFloat16* dx, int64_t M, int64_t K,
                        int64_t D, float* scratch) {
  for (int64_t n = 0; n < D; n += PANEL) {
    brgemm(M, PANEL, K, K, PANEL, PANEL, false, a, w + n * K, scratch);
    for (int64_t m = 0; m < M; m++)
      for (int64_t i = 0; i < PANEL; i += LANES)
        store(dx + m * D + n + i, _mm512_add_ps(load(scratch + m * PANEL + i), load(d_sum + m * D + n + i)));
  }
}

template <typename F>
torch::CppFunction on_cpu(F* function) {
  return torch::dispatch(c10::DispatchKey::CPU, function);
}

}  // namespace fused
