//! Agents: who is rung for whom, step by step, and against a model.

mod calls;
mod care;
mod model;
mod run;
mod strategies;
