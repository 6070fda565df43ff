//! The basic operations of GSM 06.10 §5.1: 16 and 32 bits, two's complement, saturating.

/// The product of two fractions, rounded (`mult_r`).
pub(super) fn mult_r(a: i16, b: i16) -> i16 {
    let product = (i32::from(a) * i32::from(b) + 16_384) >> 15;
    product.min(i16::MAX.into()) as i16
}

/// The product of two fractions, cut (`mult`).
pub(super) fn mult(a: i16, b: i16) -> i16 {
    ((i32::from(a) * i32::from(b)) >> 15).min(i16::MAX.into()) as i16
}

/// Left shifts that bring a number, not 0, to the largest size that its sign allows (`norm`).
pub(super) fn norm(value: i32) -> u32 {
    if value < 0 { (!value).leading_zeros() } else { value.leading_zeros() }.saturating_sub(1)
}

/// A fraction of two numbers of which neither is negative and the first is not larger (`div`).
pub(super) fn div(numerator: i16, denominator: i16) -> i16 {
    let (mut rest, denominator) = (i32::from(numerator), i32::from(denominator));
    (0..15).fold(0, |quotient, _| {
        rest <<= 1;
        let bit = rest >= denominator && denominator > 0;
        if bit {
            rest -= denominator;
        }
        quotient << 1 | i16::from(bit)
    })
}

/// The size of a number, saturated (`abs`).
pub(super) fn abs(value: i16) -> i16 {
    value.saturating_abs()
}
