import process from 'node:process'
import * as fieldstream from 'fieldstream'
import { anthropic } from 'fieldstream/anthropic'
import { report } from './scenario.mjs'

console.log(await report({ fieldstream, createProvider: anthropic, serverURL: process.env['SERVER_URL'] }))
