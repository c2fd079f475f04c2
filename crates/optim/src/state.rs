use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use crate::group::Parameter;
use crate::{Error, Result};

/// Everything an optimiser's next step depends on besides parameters and gradients.
#[derive(Debug, Clone)]
pub struct OptimizerState {
    /// The optimiser, `adam` for instance.
    pub kind: String,
    /// The learning rate that was set last.
    pub learning_rate: f64,
    /// The number of steps each parameter has made, by its name.
    pub steps: BTreeMap<String, u64>,
    /// Moments and the like, called `<what>/<parameter>`, each of its parameter's shape and type.
    pub tensors: BTreeMap<String, Tensor>,
}

impl OptimizerState {
    /// The state as tensors alone, for a safetensors file: the moments under their own names, the rest as
    /// `kind/<kind>` (empty), `learning_rate` (f64) and `step/<parameter>` (i64).
    ///
    /// # Errors
    ///
    /// If a tensor cannot be made, or a step count is beyond 2^63.
    pub fn to_tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let cpu = &Device::Cpu;
        let mut all = self.tensors.clone();
        all.insert(format!("kind/{}", self.kind), Tensor::zeros(0, DType::U8, cpu)?);
        all.insert("learning_rate".to_owned(), Tensor::new(self.learning_rate, cpu)?);
        for (name, &step) in &self.steps {
            let step = i64::try_from(step)
                .map_err(|_| Error::State(format!("step {step} of `{name}` is too large")))?;
            all.insert(format!("step/{name}"), Tensor::new(step, cpu)?);
        }
        Ok(all)
    }

    /// The inverse of [`OptimizerState::to_tensors`].
    ///
    /// # Errors
    ///
    /// If kind or learning rate is missing, or a step is not a whole number from 0 on.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Self> {
        let (mut kind, mut learning_rate) = (None, None);
        let (mut steps, mut others) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in tensors {
            if let Some(name) = name.strip_prefix("kind/") {
                kind = Some(name.to_owned());
            } else if name == "learning_rate" {
                learning_rate = Some(tensor.to_scalar()?);
            } else if let Some(parameter) = name.strip_prefix("step/") {
                let step = tensor.to_scalar::<i64>()?;
                let step = u64::try_from(step)
                    .map_err(|_| Error::State(format!("step {step} of `{parameter}` is negative")))?;
                steps.insert(parameter.to_owned(), step);
            } else {
                others.insert(name, tensor);
            }
        }
        let (Some(kind), Some(learning_rate)) = (kind, learning_rate) else {
            return Err(Error::State("`kind/…` or `learning_rate` is missing".to_owned()));
        };
        Ok(Self { kind, learning_rate, steps, tensors: others })
    }

    /// Refuses the state of another kind of optimiser, or of other parameters.
    pub(crate) fn check(&self, kind: &str, parameters: &[&Parameter], slots: &[&str]) -> Result<()> {
        if self.kind != kind {
            return Err(Error::State(format!("it is of `{}`, but this is `{kind}`", self.kind)));
        }
        let name_of =
            |key: &str| slots.iter().find_map(|s| key.strip_prefix(s)?.strip_prefix('/').map(str::to_owned));
        for key in self.tensors.keys() {
            match name_of(key) {
                Some(name) if parameters.iter().any(|p| p.name == name) => {}
                _ => return Err(Error::State(format!("`{key}` belongs to no parameter"))),
            }
        }
        for parameter in parameters {
            let name = &parameter.name;
            let Some(step) = self.steps.get(name) else {
                return Err(Error::State(format!("the step count of `{name}` is missing")));
            };
            for slot in slots {
                match self.tensors.get(&format!("{slot}/{name}")) {
                    None if *step == 0 => {}
                    Some(t) if t.dims() == parameter.var.dims() && t.dtype() == parameter.var.dtype() => {}
                    found => {
                        return Err(Error::State(format!(
                            "`{slot}/{name}` should be {:?} {:?}, but is {:?}",
                            parameter.var.dtype(),
                            parameter.var.dims(),
                            found.map(|t| (t.dtype(), t.dims()))
                        )));
                    }
                }
            }
        }
        if let Some(name) = self.steps.keys().find(|name| !parameters.iter().any(|p| &p.name == *name)) {
            return Err(Error::State(format!("`{name}` is no parameter of this optimiser")));
        }
        Ok(())
    }
}
