// exp, erf, cos and sin from additions, multiplications and divisions only.
//
// libm's functions differ between machines in the last bit, and one bit of a probability is enough
// to lose an entropy-coded file. These give the same bits wherever doubles are IEEE and the
// compiler may not contract (-ffp-contract=off).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace fastcodec {

// x rounded to the nearest integer, |x| < 2^51; adding 1.5 * 2^52 leaves no room for a fraction.
inline double Nearest(double x) { return (x + 6755399441055744.0) - 6755399441055744.0; }

// e^x for x <= 709, relative error 1e-14; 0 below -708.
inline double Exp(double x) {
  if (!(x >= -708.0)) return std::isnan(x) ? x : 0.0;
  const double n = Nearest(x * 1.4426950408889634);
  // ln 2 in two parts, the first short enough for n * part to be exact.
  const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double sum = 1.0 / 39916800;
  sum = sum * r + 1.0 / 3628800;
  sum = sum * r + 1.0 / 362880;
  sum = sum * r + 1.0 / 40320;
  sum = sum * r + 1.0 / 5040;
  sum = sum * r + 1.0 / 720;
  sum = sum * r + 1.0 / 120;
  sum = sum * r + 1.0 / 24;
  sum = sum * r + 1.0 / 6;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  const int64_t exponent = (static_cast<int64_t>(n) + 1023) << 52;
  double power;
  std::memcpy(&power, &exponent, sizeof(power));
  return sum * power;
}

// Error function, absolute error 3e-10: erfc(z) = e^(-z^2) P(1 / (1 + z/2)), P a Chebyshev fit of
// degree 10 on z in [0, 6].
inline double Erf(double x) {
  const double z = std::fabs(x);
  if (z >= 6.0) return x < 0 ? -1.0 : 1.0;
  const double t = 1.0 / (1.0 + 0.5 * z);
  double p = 0.0414913431102188605;
  p = p * t - 0.291256983597168759;
  p = p * t + 0.852357803865509195;
  p = p * t - 1.28485216080102617;
  p = p * t + 0.990030810417735011;
  p = p * t - 0.448143846557278604;
  p = p * t + 0.370311082491701887;
  p = p * t + 0.198853801933386576;
  p = p * t + 0.289811709812721009;
  p = p * t + 0.28136573510184707;
  p = p * t + 0.000030704438807942846;
  const double erf = 1.0 - p * Exp(-z * z);
  return x < 0 ? -erf : erf;
}

// cos(x) and sin(x) for 0 <= x < 1.6e6, absolute error 1e-14 (the reduction is exact up to 2^20
// quarter turns, a little worse beyond).
inline void CosSin(double x, double* cosine, double* sine) {
  const double n = Nearest(x * 0.63661977236758134);
  const double r = (x - n * 1.57079632673412561417e+00) - n * 6.07710050650619224932e-11;
  const double r2 = r * r;
  double s = -1.0 / 1307674368000;
  s = s * r2 + 1.0 / 6227020800;
  s = s * r2 - 1.0 / 39916800;
  s = s * r2 + 1.0 / 362880;
  s = s * r2 - 1.0 / 5040;
  s = s * r2 + 1.0 / 120;
  s = s * r2 - 1.0 / 6;
  s = s * r2 * r + r;
  double c = 1.0 / 20922789888000;
  c = c * r2 - 1.0 / 87178291200;
  c = c * r2 + 1.0 / 479001600;
  c = c * r2 - 1.0 / 3628800;
  c = c * r2 + 1.0 / 40320;
  c = c * r2 - 1.0 / 720;
  c = c * r2 + 1.0 / 24;
  c = c * r2 - 0.5;
  c = c * r2 + 1.0;
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      *cosine = c, *sine = s;
      break;
    case 1:
      *cosine = -s, *sine = c;
      break;
    case 2:
      *cosine = -c, *sine = -s;
      break;
    default:
      *cosine = s, *sine = -c;
      break;
  }
}

}  // namespace fastcodec
