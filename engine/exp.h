/* Exponential and logarithm that give the same bits on every machine: additions,
 * multiplications and divisions only, which IEEE 754 rounds in one way. */
#ifndef QUERN_EXP_H
#define QUERN_EXP_H

#include <stdint.h>
#include <string.h>

/* e^x for x <= 0, within 1e-15 of the true value relatively; 0 below -700 (also for minus infinity and NaN).
 * x = n ln2 + r, |r| <= ln2 / 2, and the Taylor series of e^r up to r^13 (the next term is below 2^-56).
 * Only operations that IEEE 754 rounds in one way, so every machine gets the same bits; no branches, so
 * the compiler can make vectors of the loops around it. */
static inline double exp_negative(double x)
{
    double y = x > -700.0 ? x : -700.0;
    double shifted = y * 0x1.71547652b82fep+0 + 0x1.8p+52; /* n in the low bits: adding 1.5 * 2^52 rounds to an integer */
    double n = shifted - 0x1.8p+52;
    double r = (y - n * 0x1.62e42fefa3800p-1) - n * 0x1.ef35793c76730p-45; /* ln2 in two parts; n times the first is exact */
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52; /* 2^n: the rest of shifted's bits falls off the top */
    double power;
    memcpy(&power, &bits, sizeof power);
    return x > -700.0 ? p * power : 0.0;
}

/* The natural logarithm of x >= 1 (finite), within 1e-15 absolutely or relatively. x = m 2^n with m around
 * 1, and log m = 2 artanh((m - 1) / (m + 1)), whose argument is at most 0.172 in magnitude: the series up
 * to its 23rd power leaves less than 2^-60. */
static inline double log_above_one(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int n = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffff) | 0x3ff0000000000000;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 0x1.6a09e667f3bcdp+0) { /* the square root of 2 */
        m *= 0.5;
        n++;
    }
    double s = (m - 1) / (m + 1), square = s * s, p = 0;
    for (int k = 23; k >= 1; k -= 2)
        p = p * square + 1.0 / k;
    return n * 0x1.62e42fefa39efp-1 + 2 * s * p;
}

#endif
