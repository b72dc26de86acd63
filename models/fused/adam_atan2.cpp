// One step of AdamATan2 (utils/optimizers.py) and of an exponential moving average of the weights, in fp32: each number
// is read and written once.

#include <optional>

#include "common.h"

namespace {

using namespace fused;

// atan2(y, x) for x >= 0, error below 3e-7, and 0 for (0, 0): `atan2_above` of utils/optimizers.py.
inline __m512 atan2_above(__m512 y, __m512 x) {
  const __m512 size = _mm512_abs_ps(y);
  const __m512 larger = _mm512_max_ps(_mm512_max_ps(size, x), _mm512_set1_ps(1e-37f));
  const __m512 t = _mm512_div_ps(_mm512_min_ps(size, x), larger), t2 = _mm512_mul_ps(t, t);
  __m512 p = _mm512_set1_ps(-0.00435524729f);
  for (const float c : {0.0230395634f, -0.0577727708f, 0.0979417588f, -0.139765603f, 0.199627001f, -0.333316588f})
    p = _mm512_fmadd_ps(p, t2, _mm512_set1_ps(c));
  const __m512 angle = _mm512_fmadd_ps(_mm512_mul_ps(t, t2), p, t);
  const __mmask16 steep = _mm512_cmp_ps_mask(size, x, _CMP_GT_OQ);
  const __m512 right = _mm512_mask_sub_ps(angle, steep, _mm512_set1_ps(1.57079632679f), angle);
  return _mm512_mask_sub_ps(right, _mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_LT_OQ), _mm512_setzero_ps(), right);
}

const float* read_floats(const Tensor& t, int64_t count, const char* name) {
  TORCH_CHECK(t.scalar_type() == at::kFloat && t.is_contiguous() && t.numel() == count, name, " is ", t.scalar_type(),
              " ", t.sizes(), ", but must be ", count, " contiguous floats");
  return t.const_data_ptr<float>();
}

// Memory to write to; bumps the version counter, so that autograd notices the change.
float* write_floats(const Tensor& t, int64_t count, const char* name) {
  read_floats(t, count, name);
  t.unsafeGetTensorImpl()->bump_version();
  return t.mutable_data_ptr<float>();
}

// The arguments of `_update_at_once` in utils/optimizers.py.
void adam_atan2(const Tensor& p, const Tensor& gradient, const Tensor& m, const Tensor& v,
                const std::optional<Tensor>& average, double keep, double rate, double correction, double beta1,
                double beta2, double ema_rate) {
  const int64_t count = p.numel();
  const float* g_ = read_floats(gradient, count, "gradient");
  float *p_ = write_floats(p, count, "p"), *m_ = write_floats(m, count, "m"), *v_ = write_floats(v, count, "v"),
        *average_ = average ? write_floats(*average, count, "average") : nullptr;
  const auto all = [](double x) { return _mm512_set1_ps(static_cast<float>(x)); };
  const __m512 keep_ = all(keep), rate_ = all(rate), correction_ = all(correction), new1 = all(1 - beta1),
               old2 = all(beta2), new2 = all(1 - beta2), old_average = all(ema_rate), new_average = all(1 - ema_rate);

  at::parallel_for(0, (count + LANES - 1) / LANES, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * LANES; i < std::min(end * LANES, count); i += LANES) {
      const __mmask16 there = count - i >= LANES ? 0xffff : (1 << (count - i)) - 1;
      const __m512 g = _mm512_maskz_loadu_ps(there, g_ + i), old = _mm512_maskz_loadu_ps(there, m_ + i);
      const __m512 mean = _mm512_fmadd_ps(new1, _mm512_sub_ps(g, old), old);
      const __m512 square = _mm512_fmadd_ps(_mm512_mul_ps(g, g), new2,
                                            _mm512_mul_ps(old2, _mm512_maskz_loadu_ps(there, v_ + i)));
      const __m512 angle = atan2_above(mean, _mm512_mul_ps(_mm512_sqrt_ps(square), correction_));
      const __m512 weight =
          _mm512_fnmadd_ps(rate_, angle, _mm512_mul_ps(keep_, _mm512_maskz_loadu_ps(there, p_ + i)));
      _mm512_mask_storeu_ps(m_ + i, there, mean);
      _mm512_mask_storeu_ps(v_ + i, there, square);
      _mm512_mask_storeu_ps(p_ + i, there, weight);
      if (average_ != nullptr) {
        const __m512 before = _mm512_mul_ps(old_average, _mm512_maskz_loadu_ps(there, average_ + i));
        _mm512_mask_storeu_ps(average_ + i, there, _mm512_fmadd_ps(new_average, weight, before));
      }
    }
  });
}

TORCH_LIBRARY_FRAGMENT(recursive_reasoning, library) {
  library.def(
      "adam_atan2(Tensor(a!) p, Tensor gradient, Tensor(b!) m, Tensor(c!) v, Tensor(d!)? average, float keep, "
      "float rate, float correction, float beta1, float beta2, float ema_rate) -> ()",
      on_cpu(adam_atan2));
}

}  // namespace
