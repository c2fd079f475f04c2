//! Between what is asked for, what records name, and what networks compute in.

use anomaly_core::Precision;
use candle_core::Device;
use vit_backbone::PrecisionSetting;

use crate::{DeviceChoice, Error};

/// What a setting comes to on a device, which is not opened for it.
pub(crate) fn resolve_precision(setting: PrecisionSetting, device: DeviceChoice) -> Result<Precision, Error> {
    let resolved = match (setting, device) {
        (PrecisionSetting::Fixed(precision), _) => precision,
        (PrecisionSetting::Auto, DeviceChoice::Cpu) => setting.resolve(&Device::Cpu),
        (PrecisionSetting::Auto, _) => vit_backbone::Precision::F32,
    };
    let known = [Precision::F32, Precision::Bf16x3, Precision::Bf16];
    known
        .into_iter()
        .find(|precision| precision.as_str() == resolved.as_str())
        .ok_or_else(|| Error::unfit("precision", "`f32`, `bf16x3` or `bf16`", resolved.as_str()))
}

/// The relative error of products in `precision` on `device`, measured.
pub(crate) fn measured_error(precision: Precision, device: &Device) -> Result<f64, Error> {
    let precision: vit_backbone::Precision = precision.as_str().parse().map_err(vit_backbone::Error::from)?;
    Ok(precision.error(device).map_err(vit_backbone::Error::from)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anomaly_core::Precision;
    use candle_core::Device;

    use super::{measured_error, resolve_precision};
    use crate::DeviceChoice;

    #[test]
    fn settings_come_to_the_precision_of_their_name() {
        for (text, precision) in
            [("f32", Precision::F32), ("bf16x3", Precision::Bf16x3), ("bf16", Precision::Bf16)]
        {
            assert_eq!(resolve_precision(text.parse().unwrap(), DeviceChoice::Cpu).unwrap(), precision);
            assert_eq!(resolve_precision(text.parse().unwrap(), DeviceChoice::Cuda(0)).unwrap(), precision);
        }
        let auto = "auto".parse().unwrap();
        assert_eq!(resolve_precision(auto, DeviceChoice::Cuda(0)).unwrap(), Precision::F32);
        assert_ne!(resolve_precision(auto, DeviceChoice::Cpu).unwrap(), Precision::Bf16);
    }

    #[test]
    fn coarser_precisions_have_larger_errors() {
        let error = |precision| measured_error(precision, &Device::Cpu).unwrap();
        let errors = [Precision::F32, Precision::Bf16x3, Precision::Bf16].map(error);
        assert!(
            errors[0] < 1e-6 && errors[0] < errors[1] && errors[1] < 1e-4 && errors[1] < errors[2],
            "{errors:?}"
        );
    }
}
