/* Written by csrc/coefficients.py; constant terms first. */

/* exp(r) - 1 = 2 r / (c - r), c = 2 + r^2 p(r^2), |r| <= ln(2) / 2; largest relative error 6.3e-12 */
static const double coth_p_f32[] = {
    0x1.5555555245503p-3,
    -0x1.6c164eaa1bd19p-9,
    0x1.1427e432a6244p-14,
};

/* log(1 + e) = 2 s (1 + w p(w)), s = e / (2 + e), w = s^2, 0 <= e <= 1; largest relative error 3.8e-10 */
static const double log1p_p_f32[] = {
    0x1.5555558d7fe22p-2, 0x1.9998d485cf47ep-3, 0x1.24c926a40acd3p-3, 0x1.bc8cf8ddd5876p-4, 0x1.dba25f0718ee6p-4,
};

/* Phi(-a) = exp(-a^2 / 2) p(a) / q(a), 0 <= a <= 15; all positive, so nothing cancels; largest relative error 1.3e-10
 */
static const double tail_p_f32[] = {
    0x1.ce353314104bdp+7, 0x1.d2cb57b334eccp+7, 0x1.cae17eae0db1fp+6,
    0x1.03daa1f1bc0a2p+5, 0x1.514acfd7d895fp+2, 0x1.98842e84e967fp-2,
};
static const double tail_q_f32[] = {
    0x1.ce35331456817p+8, 0x1.a1ca98923f7b6p+9, 0x1.4c847fb4085e3p+9, 0x1.2cb900c04c61cp+8,
    0x1.49b0924523ee2p+6, 0x1.a6baecb91e8d9p+3, 0x1.0000000000000p+0,
};

/* exp(r) - 1 = 2 r / (c - r), c = 2 + r^2 p(r^2), |r| <= ln(2) / 2; largest relative error 3.5e-18 */
static const double coth_p_f64[] = {
    0x1.5555555555553p-3, -0x1.6c16c16c0ac0dp-9, 0x1.1566ab5c1c1c8p-14, -0x1.bbd532403d54ap-20, 0x1.63f285ba006ecp-25,
};

/* log(1 + e) = 2 s (1 + w p(w)), s = e / (2 + e), w = s^2, 0 <= e <= 1; largest relative error 4.7e-18 */
static const double log1p_p_f64[] = {
    0x1.5555555555555p-2, 0x1.999999999a3ddp-3, 0x1.24924923d44c6p-3, 0x1.c71c727143318p-4, 0x1.745cf0b0e03bdp-4,
    0x1.3b18b294bebf9p-4, 0x1.10ac75dc602b1p-4, 0x1.eb905e8575054p-5, 0x1.687a6e7c95176p-5, 0x1.4b0a26c5f2aefp-4,
};

/* Phi(-a) = exp(-a^2 / 2) p(a) / q(a), 0 <= a <= 39; all positive, so nothing cancels; largest relative error 1.7e-18
 */
static const double tail_p_f64[] = {
    0x1.bdec09eaa06bbp+19, 0x1.708700fb037c2p+20, 0x1.2dfe457bf5d6cp+20, 0x1.3d0657863a55cp+19,
    0x1.d3b55f2ac95f3p+17, 0x1.f84cb4ecd5f71p+15, 0x1.91e6e5fd37444p+13, 0x1.d4128b5ea6770p+10,
    0x1.7ea038459624dp+7,  0x1.8f34ce637fcaep+3,  0x1.9884533d43ce8p-2,
};
static const double tail_q_f64[] = {
    0x1.bdec09eaa06bbp+20, 0x1.1136564dab0e2p+22, 0x1.393f8ab3cb204p+22, 0x1.bc7893acd9636p+21,
    0x1.b29e8ccc620b0p+20, 0x1.345eccb2255bbp+19, 0x1.45112ad1bf0f5p+17, 0x1.ff2bce4aaf0ddp+14,
    0x1.27467b609629dp+12, 0x1.e08ce6e0f4f29p+8,  0x1.f454b3b6b0784p+4,  0x1.0000000000000p+0,
};

/* exp(r) = 1 + r + r^2 p(r), |r| <= ln(2) / 2; largest relative error 1.0e-8 */
static const double exp_p[] = {
    0x1.0000000000000p-1, 0x1.5554dd04e58bep-3, 0x1.55551933893e6p-5, 0x1.120b616c43f75p-7, 0x1.6d10fc65baf1cp-10,
};

/* tanh(z) = z + z^3 p(z^2), |z| <= 0.55; largest relative error 3.8e-9 */
static const double tanh_p[] = {
    -0x1.55555471a38b6p-2, 0x1.110fea5199763p-3, -0x1.b9a0443851c73p-5, 0x1.5d220dda56a2dp-6, -0x1.b135385a8f266p-8,
};
